//! The user istio-proxy. Istio's own package gives it whatever number is free; ours must be 1337, which the rules let
//! pass.

use anyhow::{Context, Result, ensure};

use crate::config::{ConfigError, ports};
use crate::host::{Host, Invocation};
use crate::sidecar::{USER, entry, ids};

/// The numbers of the user and its group.
pub(super) const OURS: (u32, u32) = (ports::PROXY_UID, ports::PROXY_GID);

/// Folders that the package and the operator make over to the user.
const OWNED: [&str; 4] = ["/etc/certs", "/var/lib/istio", "/var/log/istio", "/run/secrets"];

/// Refuses to go on when systemd would run Envoy under another number than the rules let pass.
///
/// # Errors
/// When the user has another one, with what to do.
pub(in crate::cli) fn expect_own_id(host: &Host) -> Result<(), ConfigError> {
    match ids(host) {
        Ok(Some((uid, gid))) if (uid, gid) != OURS => Err(ConfigError::key(
            "user istio-proxy",
            format!(
                "has user id {uid} and group id {gid}, and Envoy would be redirected to itself: both must be 1337; \
                 `istio-vm-agent import --switch` changes them, or groupmod and usermod"
            ),
        )),
        _ => Ok(()),
    }
}

/// Nobody else may have the numbers that it is to get.
pub(super) fn expect_free(host: &Host) -> Result<()> {
    for (database, what, id) in [("passwd", "user", OURS.0), ("group", "group", OURS.1)] {
        let owner = entry(host, database, &id.to_string())?.unwrap_or_default();
        ensure!(
            owner.is_empty() || owner.starts_with("istio-proxy:"),
            "{what} id {id} is taken, and istio-proxy must have it: {owner}"
        );
    }
    Ok(())
}

/// Gives the user and its group other numbers, and with them its files. None of its processes may run.
pub(super) fn renumber(host: &Host, from: (u32, u32), to: (u32, u32)) -> Result<()> {
    let (uid, gid) = (to.0.to_string(), to.1.to_string());
    let run = |argv: &[&str]| host.run(&Invocation::new(argv.iter().copied()));
    run(&["groupmod", "--gid", &gid, USER]).context("failed to change the group's id")?;
    run(&["usermod", "--uid", &uid, "--gid", &gid, USER]).context("failed to change the user's id")?;
    let mut there = Vec::new();
    for path in OWNED {
        if host.meta(path.as_ref())?.is_some() {
            there.push(path);
        }
    }
    if there.is_empty() {
        return Ok(());
    }
    for (from, to) in [
        (format!("--from={}", from.0), uid),
        (format!("--from=:{}", from.1), format!(":{gid}")),
    ] {
        let argv = [
            ["chown", "--recursive", "--no-dereference", &from, &to].as_slice(),
            &there,
        ]
        .concat();
        run(&argv).context("failed to make its files over to it")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::host::{CommandError, Run};

    /// Answers getent with these lines, and remembers all else.
    #[derive(Clone, Debug, Default)]
    struct Databases {
        lines: Vec<(&'static str, &'static str)>,
        ran: Arc<Mutex<Vec<String>>>,
    }

    impl Run for Databases {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            let text = call.to_string();
            if !text.starts_with("getent ") {
                self.ran.lock().unwrap().push(text);
                return Ok(String::new());
            }
            let line = self.lines.iter().find(|(asked, _)| format!("getent {asked}") == text);
            line.map(|(_, line)| format!("{line}\n"))
                .ok_or_else(|| CommandError::Failed {
                    call: Box::new(call.clone()),
                    status: "exit status: 2".to_owned(),
                    stderr: String::new(),
                })
        }
    }

    fn vm(lines: &[(&'static str, &'static str)]) -> (tempfile::TempDir, Host, Databases) {
        let root = tempfile::tempdir().unwrap();
        let databases = Databases {
            lines: lines.to_vec(),
            ..Databases::default()
        };
        let host = Host::new(root.path(), databases.clone());
        (root, host, databases)
    }

    const THEIRS: (&str, &str) = ("passwd istio-proxy", "istio-proxy:x:999:997::/var/lib/istio:/bin/sh");
    const OURS_THERE: (&str, &str) = ("passwd istio-proxy", "istio-proxy:x:1337:1337::/:/usr/sbin/nologin");

    #[test]
    fn user_with_another_number_is_refused_with_the_remedy_and_no_user_is_none_of_it() {
        let (_root, host, _) = vm(&[THEIRS]);
        assert_eq!(ids(&host).unwrap(), Some((999, 997)));
        let error = expect_own_id(&host).unwrap_err().to_string();
        assert!(
            error.contains("user id 999 and group id 997") && error.contains("import --switch"),
            "{error}"
        );
        for lines in [vec![], vec![OURS_THERE]] {
            expect_own_id(&vm(&lines).1).unwrap();
        }
    }

    #[test]
    fn number_that_is_somebody_else_s_is_named() {
        for (lines, wanted) in [
            (vec![("passwd 1337", "db:x:1337:5::/:/bin/sh")], "user id 1337 is taken"),
            (vec![("group 1337", "db:x:1337:")], "group id 1337 is taken"),
        ] {
            let error = expect_free(&vm(&lines).1).unwrap_err().to_string();
            assert!(error.contains(wanted) && error.contains("db:x"), "{error}");
        }
        let own = [
            ("passwd 1337", "istio-proxy:x:1337:1337::/:/x"),
            ("group 1337", "istio-proxy:x:1337:"),
        ];
        expect_free(&vm(&own).1).unwrap();
        expect_free(&vm(&[]).1).unwrap();
    }

    #[test]
    fn files_of_the_user_follow_its_number_and_no_others() {
        let (root, host, databases) = vm(&[]);
        renumber(&host, (999, 997), OURS).unwrap();
        let wanted = [
            "groupmod --gid 1337 istio-proxy",
            "usermod --uid 1337 --gid 1337 istio-proxy",
        ];
        assert_eq!(*databases.ran.lock().unwrap(), wanted, "there is nothing of it");
        databases.ran.lock().unwrap().clear();
        std::fs::create_dir_all(root.path().join("etc/certs")).unwrap();
        renumber(&host, OURS, (999, 997)).unwrap();
        let wanted = [
            "groupmod --gid 997 istio-proxy",
            "usermod --uid 999 --gid 997 istio-proxy",
            "chown --recursive --no-dereference --from=1337 999 /etc/certs",
            "chown --recursive --no-dereference --from=:1337 :997 /etc/certs",
        ];
        assert_eq!(*databases.ran.lock().unwrap(), wanted);
    }
}
