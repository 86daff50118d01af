use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use super::*;

#[tokio::test]
async fn exit_status_decides_and_stderr_gives_the_reason() {
    assert_eq!(ask_once("exec = { command = ['true'] }").await, Ok(()));
    let script = "echo quiet; yes broken | head -c 200000 >&2; exit 3";
    let reason = ask_once(&format!(
        "exec = {{ command = ['sh', '-c', '{script}'] }}\ntimeout = '20s'"
    ))
    .await
    .unwrap_err();
    assert!(reason.contains("exit status: 3: broken"), "{reason}");
    assert!(reason.len() < 500 && !reason.contains("quiet\n"), "{reason}");
    let reason = ask_once("exec = { command = ['no-such-program'] }").await.unwrap_err();
    assert!(reason.starts_with("failed to run `no-such-program`: "), "{reason}");
}

#[tokio::test]
async fn command_has_no_privileges_and_no_environment() {
    let script = "test $(id -u) != 0 && test \"$(env | grep -vE \"^(PATH|PWD|SHLVL|_)=\")\" = \"\"";
    assert_eq!(
        ask_once(&format!("exec = {{ command = ['sh', '-c', '{script}'] }}")).await,
        Ok(())
    );
}

#[tokio::test]
async fn deadline_kills_the_command_and_what_it_started() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // The command runs as somebody else.
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
    let script = format!("sleep 600 & echo $! > {}; wait", file.path().display());
    let text = format!("exec = {{ command = ['sh', '-c', '{script}'] }}\ntimeout = '1s'");
    assert_eq!(ask_once(&text).await.unwrap_err(), "no answer within 1s");
    let mut pid = String::new();
    file.read_to_string(&mut pid).unwrap();
    let status = format!("/proc/{}/stat", pid.trim());
    assert!(!pid.is_empty());
    let gone = async {
        // Nobody may wait for it here: a zombie is dead enough.
        while std::fs::read_to_string(&status).is_ok_and(|stat| !stat.contains(") Z ")) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone)
        .await
        .expect("the command's child lives on");
}
