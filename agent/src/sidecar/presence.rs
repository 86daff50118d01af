//! Whether Istio's own agent is on this VM, and whether it is active: now, or at the next boot.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::config::ConfigError;
use crate::host::{Host, Read};

/// The unit that the package installs.
pub const UNIT: &str = "istio.service";

/// systemd's folders of units, the operator's first.
const UNIT_FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];
/// A unit that is enabled is linked to here.
const WANTED: &str = "/etc/systemd/system/multi-user.target.wants";
/// What the unit runs; there without a unit where somebody unpacked the package by hand.
const PROGRAM: &str = "/usr/local/bin/istio-start.sh";

/// What its Envoy is told to read (pkg/envoy/proxy.go).
const BOOTSTRAP: &str = "etc/istio/proxy/envoy-rev.json";
/// Larger than any command line of it.
const MAX_COMMAND_LINE: usize = 64 << 10;

/// What there is of it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sidecar {
    /// Its unit's file, when there is one.
    pub unit: Option<PathBuf>,
    /// Whether the unit starts with the machine.
    pub enabled: bool,
    /// Whether systemd has started the unit, or is about to.
    pub started: bool,
    /// Its processes in our network namespace.
    pub pids: Vec<u32>,
}

/// Looks for it; `None` when there is nothing of it. Blocks.
pub fn find(host: &Host) -> io::Result<Option<Sidecar>> {
    let mut units = UNIT_FOLDERS.into_iter().map(|folder| Path::new(folder).join(UNIT));
    let unit = units.find(|path| matches!(host.meta(path), Ok(Some(_))));
    let found = Sidecar {
        enabled: host.meta(&Path::new(WANTED).join(UNIT))?.is_some(),
        started: unit.is_some() && is_started(host),
        pids: pids(host)?,
        unit,
    };
    let nothing = found == Sidecar::default() && host.meta(Path::new(PROGRAM))?.is_none();
    Ok((!nothing).then_some(found))
}

/// Refuses to go on beside an active one.
///
/// # Errors
/// When it is active, with what to do.
pub fn expect_inactive(host: &Host) -> Result<(), ConfigError> {
    // What can't be looked at is no reason to keep a VM out of the mesh.
    let Ok(Some(found)) = find(host) else { return Ok(()) };
    let Some(activity) = found.activity() else {
        return Ok(());
    };
    let place = found.unit.as_deref().unwrap_or_else(|| Path::new("istio-sidecar"));
    Err(ConfigError::new(
        place,
        format!(
            "Istio's own agent {activity}, and two agents would fight over ports and rules: {}",
            found.remedy()
        ),
    ))
}

impl Sidecar {
    /// `is running (pid 7) and enabled`; `None` when it does nothing, now or later.
    pub fn activity(&self) -> Option<String> {
        let pids: Vec<String> = self.pids.iter().map(u32::to_string).collect();
        let now = match (self.pids.as_slice(), self.started) {
            ([], false) => None,
            ([], true) => Some("is started".to_owned()),
            _ => Some(format!("is running (pid {})", pids.join(", "))),
        };
        let later = self.enabled.then_some("starts at boot");
        match (now, later) {
            (None, None) => None,
            (Some(now), None) => Some(now),
            (None, Some(later)) => Some(later.to_owned()),
            (Some(now), Some(later)) => Some(format!("{now} and {later}")),
        }
    }

    /// What to do about an active one.
    pub fn remedy(&self) -> &'static str {
        if self.unit.is_some() {
            "take its place with `istio-vm-agent import --switch`, or stop it with `systemctl disable --now istio`"
        } else {
            "end the process, then take over what it was told with `istio-vm-agent import`"
        }
    }
}

/// systemd's word; without a systemd nothing is started.
fn is_started(host: &Host) -> bool {
    // `activating` is also its wait between a crash and the next start.
    host.unit_property(UNIT, "ActiveState")
        .is_ok_and(|state| !matches!(state.as_str(), "" | "inactive" | "failed"))
}

fn pids(host: &Host) -> io::Result<Vec<u32>> {
    let Some(own) = network(host, "self") else {
        return Ok(Vec::new());
    };
    let pids = host
        .names_in(Path::new("/proc"))?
        .into_iter()
        .filter_map(|name| name.parse().ok());
    let mut found: Vec<u32> = pids
        .filter(|pid: &u32| is_its(host, *pid) && network(host, &pid.to_string()) == Some(own))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// Whether the process is `pilot-agent proxy …`, or the Envoy of one, which outlives it when it is killed.
fn is_its(host: &Host, pid: u32) -> bool {
    let path = format!("/proc/{pid}/cmdline");
    let Ok(Some(line)) = host.read(Path::new(&path), Read::max(MAX_COMMAND_LINE)) else {
        return false;
    };
    let mut words = line.split('\0');
    let program = Path::new(words.next().unwrap_or_default()).file_name();
    match program.and_then(|name| name.to_str()) {
        Some("pilot-agent") => words.next() == Some("proxy"),
        Some("envoy") => words.any(|word| Path::new(word).ends_with(BOOTSTRAP)),
        _ => false,
    }
}

/// What is the same for processes of one network namespace, and differs between two: each has a tree of its own
/// under /proc/net. The link /proc/PID/ns/net says the same, but only to who may trace that process.
fn network(host: &Host, pid: &str) -> Option<u64> {
    let path = format!("/proc/{pid}/net/tcp");
    host.meta(Path::new(&path)).ok().flatten().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::{CommandError, Invocation, Run};

    /// A systemd that says this of the unit's state.
    #[derive(Debug)]
    struct Systemd(&'static str);

    impl Run for Systemd {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            assert_eq!(
                call.to_string(),
                "systemctl show --property=ActiveState --value istio.service"
            );
            Ok(format!("{}\n", self.0))
        }
    }

    struct Vm {
        root: tempfile::TempDir,
        host: Host,
    }

    impl Vm {
        fn new(state: &'static str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let host = Host::new(root.path(), Systemd(state));
            let vm = Self { root, host };
            vm.file("proc/self/net/tcp", "");
            vm
        }

        fn file(&self, path: &str, text: &str) {
            let path = Path::new("/").join(path);
            self.host.make_directory(path.parent().unwrap(), 0o755, None).unwrap();
            self.host.write(&path, text, 0o644, None).unwrap();
        }

        fn process(&self, pid: u32, line: &str, is_ours: bool) {
            self.file(&format!("proc/{pid}/cmdline"), line);
            let network = format!("proc/{pid}/net/tcp");
            self.file(&network, "");
            if is_ours {
                fs::remove_file(self.root.path().join(&network)).unwrap();
                fs::hard_link(
                    self.root.path().join("proc/self/net/tcp"),
                    self.root.path().join(network),
                )
                .unwrap();
            }
        }
    }

    const AGENT: &str = "/usr/local/bin/pilot-agent\0proxy\0sidecar\0";
    const ENVOY: &str = "/usr/local/bin/envoy\0-c\0etc/istio/proxy/envoy-rev.json\0--drain-time-s\x0045\0";

    #[test]
    fn a_vm_without_it_has_nothing_to_say() {
        let vm = Vm::new("active");
        vm.process(7, "/usr/local/bin/pilot-agent\0istio-iptables\0", true);
        vm.process(8, "/usr/bin/vi\0/usr/local/bin/pilot-agent\0proxy\0", true);
        vm.process(9, AGENT, false);
        vm.process(10, "/usr/local/bin/envoy\0-c\0/run/istio-vm-agent/envoy.json\0", true);
        assert_eq!(find(&vm.host).unwrap(), None);
        expect_inactive(&vm.host).unwrap();
    }

    #[test]
    fn an_installed_one_that_does_nothing_is_in_nobodys_way() {
        let vm = Vm::new("inactive");
        vm.file("lib/systemd/system/istio.service", "");
        vm.file("usr/local/bin/istio-start.sh", "");
        let found = find(&vm.host).unwrap().unwrap();
        assert_eq!(
            found.unit.as_deref(),
            Some(Path::new("/lib/systemd/system/istio.service"))
        );
        assert_eq!(found.activity(), None);
        expect_inactive(&vm.host).unwrap();
    }

    #[test]
    fn whatever_makes_it_active_is_named_with_the_remedy() {
        let started = Vm::new("activating");
        started.file("lib/systemd/system/istio.service", "");
        let enabled = Vm::new("inactive");
        enabled.file("lib/systemd/system/istio.service", "");
        fs::create_dir_all(enabled.root.path().join("etc/systemd/system/multi-user.target.wants")).unwrap();
        let link = "etc/systemd/system/multi-user.target.wants/istio.service";
        symlink("/lib/systemd/system/istio.service", enabled.root.path().join(link)).unwrap();
        let by_hand = Vm::new("inactive");
        by_hand.process(42, AGENT, true);
        by_hand.process(43, ENVOY, true);
        for (vm, place, activity, remedy) in [
            (
                &started,
                "/lib/systemd/system/istio.service: ",
                "agent is started,",
                "import --switch",
            ),
            (
                &enabled,
                "/lib/systemd/system/istio.service: ",
                "agent starts at boot,",
                "import --switch",
            ),
            (
                &by_hand,
                "istio-sidecar: ",
                "agent is running (pid 42, 43),",
                "end the process",
            ),
        ] {
            let error = expect_inactive(&vm.host).unwrap_err().to_string();
            assert!(
                error.starts_with(place) && error.contains(activity) && error.contains(remedy),
                "{error}"
            );
        }
    }
}
