//! Presence of Istio's own agent on this VM, and its activity: now, or at the next boot.

use std::cell::LazyCell;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use super::user;
use crate::config::ConfigError;
use crate::host::Host;

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
/// The program that the unit runs; there without a unit where somebody unpacked the package by hand.
const PROGRAM: &str = "/usr/local/bin/istio-start.sh";

/// The bootstrap that the Envoy of Istio's agent is told to read (pkg/envoy/proxy.go).
const BOOTSTRAP: &str = "etc/istio/proxy/envoy-rev.json";

/// The parts of Istio's own agent that are there.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Sidecar {
    /// The unit's file, when there is one.
    pub unit: Option<PathBuf>,
    /// True when the unit starts with the machine.
    pub enabled: bool,
    /// True when systemd has started the unit, or is about to.
    pub started: bool,
    /// Processes in our network namespace: those of the unit, and those that root or the unit's user has started by
    /// hand. Nobody else's count, whatever they call themselves.
    pub pids: Vec<u32>,
}

/// Looks for Istio's own agent; `None` when there is nothing of it. Blocks.
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
/// When it is active, with what to do: a [`ConfigError`] when it starts at boot, which only the operator changes;
/// another error when it may have ended by the next try.
pub fn expect_inactive(host: &Host) -> Result<()> {
    // What can't be looked at is no reason to keep a VM out of the mesh.
    let Ok(Some(found)) = find(host) else { return Ok(()) };
    let Some(activity) = found.activity() else {
        return Ok(());
    };
    let place = found.unit.as_deref().unwrap_or_else(|| Path::new("istio-sidecar"));
    let problem = format!(
        "Istio's own agent {activity}, and two agents would fight over ports and rules: {}",
        found.remedy()
    );
    if found.enabled {
        return Err(ConfigError::new(place, problem).into());
    }
    bail!("{}: {problem}", place.display())
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

    /// Says what to do about an active one.
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

/// systemd is asked, which takes a program and longer than all else here, only about a process that may be of the unit.
fn pids(host: &Host) -> io::Result<Vec<u32>> {
    let Some(own) = network(host, "self") else {
        return Ok(Vec::new());
    };
    let group = LazyCell::new(|| host.unit_property(UNIT, "ControlGroup").unwrap_or_default());
    let is_of_unit = |pid| host.may_be_in_unit(pid, UNIT) && !group.is_empty() && host.is_in_group(pid, &group);
    let is_its = |pid| is_of_unit(pid) || is_by_hand(host, pid);
    let pids = host
        .names_in(Path::new("/proc"))?
        .into_iter()
        .filter_map(|name| name.parse().ok());
    let mut found: Vec<u32> = pids
        .filter(|pid: &u32| network(host, &pid.to_string()) == Some(own) && is_its(*pid))
        .collect();
    found.sort_unstable();
    Ok(found)
}

/// True for a process that is `pilot-agent proxy …`, or the Envoy of one, which outlives it when it is killed; and
/// root's or its own user's, of a program that root has put there.
fn is_by_hand(host: &Host, pid: u32) -> bool {
    let Some(name) = called(host, pid) else { return false };
    let is_named = |program: PathBuf| program.file_name().is_some_and(|file| file == name);
    if !host.program_of_root(pid).is_some_and(is_named) {
        return false;
    }
    let own = user::ids(host).ok().flatten().map(|(uid, _)| uid);
    let users: Vec<u32> = [0].into_iter().chain(own).collect();
    host.is_of(pid, &users)
}

/// The program that a command line claims to be, if that is one of the two: anybody can say so.
fn called(host: &Host, pid: u32) -> Option<&'static str> {
    let line = host.command_line(pid)?;
    let mut words = line.split('\0');
    let program = Path::new(words.next().unwrap_or_default()).file_name()?;
    match program.to_str()? {
        "pilot-agent" => (words.next() == Some("proxy")).then_some("pilot-agent"),
        "envoy" => words
            .any(|word| Path::new(word).ends_with(BOOTSTRAP))
            .then_some("envoy"),
        _ => None,
    }
}

/// A number that is the same for processes of one network namespace, and differs between two: each has a tree of its
/// own under /proc/net. The link /proc/PID/ns/net says the same, but only to who may trace that process.
fn network(host: &Host, pid: &str) -> Option<u64> {
    let path = format!("/proc/{pid}/net/tcp");
    host.meta(Path::new(&path)).ok().flatten().map(|meta| meta.ino())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::host::fixtures::Answers;
    use crate::host::{Invocation, Run};

    const GROUP: &str = "/system.slice/istio.service";
    /// The state of a unit about which nobody is to ask.
    const UNASKED: &str = "unasked";

    /// A systemd that says this of the unit's state, with istio-proxy's number.
    fn systemd(state: &'static str) -> impl Run + 'static {
        Answers(move |call: &Invocation| {
            let answer = match call.to_string().as_str() {
                "systemctl show --property=ActiveState --value istio.service" => state,
                "systemctl show --property=ControlGroup --value istio.service" if state != UNASKED => GROUP,
                "getent passwd istio-proxy" => "istio-proxy:x:998:997::/var/lib/istio:/bin/sh",
                other => panic!("{other}"),
            };
            Ok(format!("{answer}\n"))
        })
    }

    struct Vm {
        root: tempfile::TempDir,
        host: Host,
    }

    impl Vm {
        fn new(state: &'static str) -> Self {
            let root = tempfile::tempdir().unwrap();
            let host = Host::new(root.path(), systemd(state));
            let vm = Self { root, host };
            vm.file("proc/self/net/tcp", "");
            vm
        }

        fn file(&self, path: &str, text: &str) {
            let path = Path::new("/").join(path);
            self.host.make_directory(path.parent().unwrap(), 0o755, None).unwrap();
            self.host.write(&path, text, 0o644, None).unwrap();
        }

        /// A process of a user, which root's program of its first word's name runs.
        fn process(&self, pid: u32, line: &str, uid: u32, is_ours: bool) {
            self.file(&format!("proc/{pid}/cmdline"), line);
            self.file(
                &format!("proc/{pid}/status"),
                &format!("Uid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
            );
            self.file(
                &format!("proc/{pid}/cgroup"),
                "0::/user.slice/user-0.slice/session-1.scope\n",
            );
            let program = line.split('\0').next().unwrap().trim_start_matches('/');
            self.runs(pid, program);
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

    impl Vm {
        fn runs(&self, pid: u32, program: &str) {
            self.file(program, "");
            let link = self.root.path().join(format!("proc/{pid}/exe"));
            let _ = fs::remove_file(&link);
            symlink(self.root.path().join(program), link).unwrap();
        }

        fn pids(&self) -> Vec<u32> {
            find(&self.host).unwrap().unwrap_or_default().pids
        }
    }

    const ROOT: u32 = 0;
    const THEIRS: u32 = 998;
    const NOBODY: u32 = 65_534;
    const AGENT: &str = "/usr/local/bin/pilot-agent\0proxy\0sidecar\0";
    const ENVOY: &str = "/usr/local/bin/envoy\0-c\0etc/istio/proxy/envoy-rev.json\0--drain-time-s\x0045\0";

    #[test]
    fn vm_without_the_sidecar_has_nothing_to_say_and_systemd_is_not_asked() {
        let vm = Vm::new(UNASKED);
        vm.process(7, "/usr/local/bin/pilot-agent\0istio-iptables\0", ROOT, true);
        vm.process(8, "/usr/bin/vi\0/usr/local/bin/pilot-agent\0proxy\0", ROOT, true);
        vm.process(9, AGENT, ROOT, false);
        vm.process(
            10,
            "/usr/local/bin/envoy\0-c\0/run/istio-vm-agent/envoy.json\0",
            ROOT,
            true,
        );
        assert_eq!(find(&vm.host).unwrap(), None);
        expect_inactive(&vm.host).unwrap();
    }

    #[test]
    fn process_of_somebody_else_is_not_the_sidecars_whatever_it_calls_itself() {
        let vm = Vm::new("inactive");
        // `exec -a pilot-agent sh proxy`.
        vm.process(7, "pilot-agent\0proxy\0", NOBODY, true);
        vm.runs(7, "bin/sh");
        // Its own copy of the program.
        vm.process(8, AGENT, NOBODY, true);
        // A set-user-ID program that waits for a password.
        vm.process(9, "pilot-agent\0proxy\0", ROOT, true);
        vm.runs(9, "bin/su");
        vm.file("proc/9/status", "Uid:\t65534\t0\t0\t0\n");
        // Its user's, of a program that it wrote itself.
        vm.process(10, "/tmp/pilot-agent\0proxy\0", THEIRS, true);
        std::os::unix::fs::chown(vm.root.path().join("tmp/pilot-agent"), Some(THEIRS), None).unwrap();
        // In a group of its own systemd's.
        vm.process(11, AGENT, NOBODY, true);
        vm.file("proc/11/cgroup", &format!("0::/user.slice/user@65534.service{GROUP}\n"));
        assert_eq!(vm.pids(), [0; 0]);
        expect_inactive(&vm.host).unwrap();

        // Whatever it is: systemd has put it there.
        vm.process(12, "sh\0", NOBODY, true);
        vm.file("proc/12/cgroup", &format!("0::{GROUP}\n"));
        assert_eq!(vm.pids(), [12]);
    }

    #[test]
    fn sidecar_is_a_wrong_configuration_only_when_it_starts_at_boot() {
        let running = Vm::new("active");
        running.file("lib/systemd/system/istio.service", "");
        assert!(!expect_inactive(&running.host).unwrap_err().is::<ConfigError>());
        fs::create_dir_all(running.root.path().join(&WANTED[1..])).unwrap();
        symlink("/x", running.root.path().join(&WANTED[1..]).join(UNIT)).unwrap();
        assert!(expect_inactive(&running.host).unwrap_err().is::<ConfigError>());
    }

    #[test]
    fn sidecar_that_is_installed_and_idle_is_in_nobodys_way() {
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
    fn sidecar_that_is_active_is_named_with_the_remedy() {
        let started = Vm::new("activating");
        started.file("lib/systemd/system/istio.service", "");
        let enabled = Vm::new("inactive");
        enabled.file("lib/systemd/system/istio.service", "");
        fs::create_dir_all(enabled.root.path().join("etc/systemd/system/multi-user.target.wants")).unwrap();
        let link = "etc/systemd/system/multi-user.target.wants/istio.service";
        symlink("/lib/systemd/system/istio.service", enabled.root.path().join(link)).unwrap();
        let by_hand = Vm::new("inactive");
        by_hand.process(42, AGENT, ROOT, true);
        by_hand.process(43, ENVOY, THEIRS, true);
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
