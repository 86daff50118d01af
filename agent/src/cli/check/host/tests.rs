use std::collections::HashMap;

use super::*;
use crate::config::Config;
use crate::host::{CommandError, Run, System};
use crate::part::{Level, Units};

/// Answers of commands, by their whole command lines.
#[derive(Clone, Debug, Default)]
struct Says(HashMap<&'static str, &'static str>);

impl Run for Says {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        match self.0.get(call.argv.join(" ").as_str()) {
            Some(text) => Ok((*text).to_owned()),
            None => Err(CommandError::NotFound {
                call: Box::new(call.clone()),
            }),
        }
    }
}

fn users(by_name: &'static str, by_number: &'static str) -> Finding {
    let lines = [
        ("getent passwd istio-proxy", by_name),
        ("getent passwd 1337", by_number),
        ("getent group istio-proxy", "istio-proxy:x:1337:\n"),
    ];
    let says = Says(lines.into_iter().filter(|(_, line)| !line.is_empty()).collect());
    user(&Host::new("/none", says))
}

#[test]
fn group_of_envoy_has_its_number_and_nobody_else_has() {
    const GOOD: &str = "istio-proxy:x:1337:1337::/:/bin/false\n";
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("etc")).unwrap();
    let told = |group: &'static str, of_number: &'static str, more: &str| {
        std::fs::write(root.path().join("etc/passwd"), format!("root:x:0:0\n{GOOD}\n{more}")).unwrap();
        let lines = [
            ("getent passwd istio-proxy", GOOD),
            ("getent passwd 1337", GOOD),
            ("getent group istio-proxy", group),
            ("getent group 1337", of_number),
        ];
        let says = Says(lines.into_iter().filter(|(_, line)| !line.is_empty()).collect());
        let found = user(&Host::new(root.path(), says));
        (found.level, found.fix.unwrap_or_default())
    };
    let good = "istio-proxy:x:1337:\n";
    let failed = |fix: &str| (Level::Failed, fix.to_owned());
    assert_eq!(told(good, good, "ada:x:1000:1000\n"), (Level::Ok, String::new()));
    assert_eq!(told("", "", ""), failed("groupadd --system --gid 1337 istio-proxy"));
    let fix = "groupmod -g ANOTHER ops && groupadd --system --gid 1337 istio-proxy";
    assert_eq!(told("", "ops:x:1337:\n", ""), failed(fix));
    assert_eq!(
        told("istio-proxy:x:996:\n", "", ""),
        failed("groupmod -g 1337 istio-proxy")
    );
    assert_eq!(told(good, good, "bob:x:1337:1337\n"), failed("usermod -u ANOTHER bob"));
    let fix = "gpasswd --delete bob istio-proxy".to_owned();
    assert_eq!(told("istio-proxy:x:1337:bob,ada\n", good, ""), (Level::Warning, fix));
}

#[test]
fn user_of_envoy_has_its_number_and_nobody_else_has() {
    let good = "istio-proxy:x:1337:1337::/:/bin/false\n";
    assert_eq!(users(good, good).level, Level::Ok);
    assert_eq!(users("", "").level, Level::Warning);
    let found = users("istio-proxy:x:999:998::/:/bin/false\n", "");
    assert!(found.level == Level::Failed && found.fix.unwrap().contains("usermod -u 1337"));
    let found = users("", "ada:x:1337:1337::/:/bin/sh\n");
    assert!(
        found.level == Level::Failed && found.detail.contains("the user ada"),
        "{found:?}"
    );
}

#[tokio::test]
async fn clock_that_nothing_synchronizes_is_named() {
    const CALL: &str = "timedatectl show --property=NTPSynchronized --value";
    for (said, level) in [("yes\n", Level::Ok), ("no\n", Level::Warning), ("", Level::Skipped)] {
        let says = Says([(CALL, said)].into());
        assert_eq!(synchronized(Host::new("/", says)).await[0].level, level, "{said}");
    }
}

#[test]
fn run_directory_without_room_is_named() {
    let state = tempfile::tempdir().unwrap();
    let mut site = Site {
        host: Host::system(),
        config: Config::default(),
        units: Units::default(),
    };
    site.config.paths.state = state.path().to_owned();
    site.config.paths.run = state.path().join("run");
    assert_eq!(disk(&site).level, Level::Ok);
    // A file system without a block.
    site.config.paths.run = "/proc/istio-vm-agent".into();
    let found = disk(&site);
    assert!(
        found.level == Level::Failed && found.detail.starts_with("/proc/istio-vm-agent has 0 MiB free"),
        "{found:?}"
    );
}

#[test]
fn file_in_the_place_of_a_directory_is_named() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    let paths = PathsConfig {
        state: "/state/agent".into(),
        run: "/run/agent".into(),
    };
    assert_eq!(directories(&host, &paths).level, Level::Ok);
    host.write(Path::new("/state"), "", 0o600, None).unwrap();
    let found = directories(&host, &paths);
    assert!(
        found.detail.contains("paths.state: /state is no directory"),
        "{found:?}"
    );
}

#[test]
fn disk_that_has_no_room_for_envoy_is_named() {
    let config = Config::default();
    let site = Site {
        host: Host::system(),
        config,
        units: Units::default(),
    };
    assert_eq!(disk(&site).level, Level::Ok);
    // A file system of nothing.
    let mut full = site;
    full.config.paths.state = "/proc/self".into();
    assert_eq!(disk(&full).level, Level::Failed);
}

#[test]
fn few_open_files_are_named() {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    assert_eq!(limits(&host).level, Level::Skipped);
    std::fs::create_dir_all(root.path().join("proc/sys/fs")).unwrap();
    for (value, level) in [("65536\n", Level::Warning), ("1048576\n", Level::Ok)] {
        std::fs::write(root.path().join("proc/sys/fs/nr_open"), value).unwrap();
        assert_eq!(limits(&host).level, level);
    }
}
