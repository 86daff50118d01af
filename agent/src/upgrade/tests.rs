//! Trials from their begin to their end, and from where a power cut left them.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::former::{KEPT, PROGRAM, UNITS};
use super::judge::Readiness;
use super::record::{Record, RecordFile};
use super::{keep, watch};
use crate::config::PathsConfig;
use crate::facts::UpgradeState;
use crate::host::{CommandError, Host, Invocation, Run};

const UNIT: &str = "a.service";
const CONFIGURATION: &str = "/etc/config.toml";
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A systemd whose unit is always in one state, and what it was told to do.
#[derive(Clone, Debug, Default)]
struct Systemd {
    state: Arc<Mutex<&'static str>>,
    orders: Arc<Mutex<Vec<String>>>,
}

impl Run for Systemd {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        if call.argv[1] == "show" {
            let state = self.state.lock().unwrap();
            // One that has words has them with their blanks.
            return Ok(match state.contains('\n') {
                true => state.to_string(),
                false => state.replace(' ', "\n"),
            });
        }
        self.orders.lock().unwrap().push(call.to_string());
        Ok(String::new())
    }
}

struct Vm {
    _root: tempfile::TempDir,
    host: Host,
    paths: PathsConfig,
    systemd: Systemd,
}

const SERVES: &str = "ActiveState=active SubState=running MainPID=7";
const WAITS: &str = "ActiveState=activating SubState=start MainPID=7 StatusText=waits";
const STOPPED: &str = "ActiveState=inactive SubState=dead MainPID=0";
const GAVE_UP: &str = "ActiveState=failed SubState=failed MainPID=0 StatusText=ended";

impl Vm {
    /// One with version `one`, whose agent serves.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let systemd = Systemd::default();
        let host = Host::new(root.path(), systemd.clone());
        for folder in [
            "/etc",
            "/usr/bin",
            UNITS,
            "/var/lib/istio-vm-agent",
            "/proc/sys/kernel/random",
        ] {
            host.make_directory(Path::new(folder), 0o755, None).unwrap();
        }
        let vm = Self {
            _root: root,
            host,
            paths: PathsConfig::default(),
            systemd,
        };
        vm.boots("first");
        vm.configure("good");
        vm.unpack("one");
        vm.agent(SERVES);
        vm
    }

    fn configure(&self, text: &str) {
        self.host.write(Path::new(CONFIGURATION), text, 0o600, None).unwrap();
    }

    fn boots(&self, id: &str) {
        self.host.write(Path::new(BOOT_ID), id, 0o444, None).unwrap();
    }

    fn agent(&self, state: &'static str) {
        *self.systemd.state.lock().unwrap() = state;
    }

    fn unpack(&self, version: &str) {
        let unit = Path::new(UNITS).join("istio-vm-agent.service");
        for path in [Path::new(PROGRAM), &unit] {
            self.host.write(path, version, 0o755, None).unwrap();
        }
    }

    fn installed(&self) -> [String; 2] {
        let unit = Path::new(UNITS).join("istio-vm-agent.service");
        [self.host.text(Path::new(PROGRAM)), self.host.text(&unit)]
    }

    fn keep(&self, from: &str, to: &str) -> bool {
        let configuration = Path::new(CONFIGURATION);
        keep(
            &self.host,
            &self.paths,
            UNIT,
            configuration,
            from.to_owned(),
            to.to_owned(),
        )
        .unwrap()
    }

    /// Watches to the end; true where the agent was let start.
    async fn watch(&self) {
        let ready = std::cell::Cell::new(false);
        let configuration = Path::new(CONFIGURATION);
        let refuses = async || self.host.text(configuration) == "bad";
        let watched = watch(&self.host, &self.paths, UNIT, configuration, refuses, || {
            ready.set(true);
        });
        watched.await.unwrap();
        assert!(ready.get(), "the agent is not let start");
    }

    /// Watches for less time than any verdict but the last boot's takes.
    async fn watch_until_the_power_is_cut(&self) {
        let _ = tokio::time::timeout(Duration::from_secs(1), self.watch()).await;
    }

    fn record(&self) -> Option<Record> {
        RecordFile::new(&self.host, &self.paths).load().unwrap()
    }

    fn state(&self) -> Option<UpgradeState> {
        self.record().map(|record| record.upgrade.state)
    }

    fn orders(&self) -> Vec<String> {
        std::mem::take(&mut self.systemd.orders.lock().unwrap())
    }
}

#[tokio::test(start_paused = true)]
async fn version_that_serves_leaves_nothing_of_its_trial() {
    let vm = Vm::new();
    assert!(vm.keep("1", "2"));
    vm.unpack("two");
    assert_eq!(vm.state(), Some(UpgradeState::Trial));
    vm.watch().await;
    assert_eq!((vm.installed(), vm.record()), (["two"; 2].map(str::to_owned), None));
    assert!(!vm.host.exists(Path::new("/usr/lib/istio-vm-agent")));
    assert_eq!(vm.orders(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn version_that_fails_is_rolled_back_and_the_next_one_goes_back_to_the_same() {
    let vm = Vm::new();
    for (from, to) in [("1", "2"), ("2", "3")] {
        assert!(vm.keep(from, to));
        vm.unpack(to);
        vm.agent(GAVE_UP);
        vm.watch().await;
        assert_eq!(vm.installed(), ["one"; 2]);
        assert_eq!(vm.state(), Some(UpgradeState::RolledBack));
        let upgrade = vm.record().unwrap().upgrade;
        assert_eq!((upgrade.from.as_str(), upgrade.to.as_str()), ("1", to));
        assert_eq!(upgrade.reason.as_deref(), Some("its agent ended for good: ended"));
        let orders = [
            "systemctl daemon-reload",
            "systemctl kill --signal=KILL a.service",
            "systemctl --no-block restart a.service",
        ];
        assert_eq!(vm.orders(), orders);
        // As long as it is told, each start looks once.
        vm.watch().await;
        assert_eq!(vm.orders(), [""; 0]);
        vm.agent(SERVES);
    }
}

#[tokio::test(start_paused = true)]
async fn version_over_one_on_trial_goes_back_to_the_one_that_was_proven() {
    let vm = Vm::new();
    assert!(vm.keep("1", "2"));
    vm.unpack("two");
    vm.agent(GAVE_UP);
    assert!(vm.keep("2", "3"));
    vm.unpack("three");
    let record = vm.record().unwrap();
    assert_eq!((record.upgrade.from.as_str(), record.before), ("1", Readiness::Serving));
    vm.watch().await;
    assert_eq!(vm.installed(), ["one"; 2]);
}

#[tokio::test(start_paused = true)]
async fn power_cut_leaves_one_of_the_two_versions_and_its_next_boot_ends_what_was_begun() {
    let vm = Vm::new();
    assert!(vm.keep("1", "2"));
    vm.unpack("two");
    // After one file of two.
    let mut record = vm.record().unwrap();
    record.becomes(UpgradeState::RollingBack);
    record.upgrade.reason = Some("it failed".to_owned());
    RecordFile::new(&vm.host, &vm.paths).save(&record).unwrap();
    let kept = Path::new(KEPT).join("istio-vm-agent.service");
    vm.host
        .link(&kept, &Path::new(UNITS).join("istio-vm-agent.service"))
        .unwrap();
    vm.boots("second");
    vm.watch().await;
    assert_eq!(
        (vm.installed(), vm.state()),
        (["one"; 2].map(str::to_owned), Some(UpgradeState::RolledBack))
    );
    assert_eq!(vm.record().unwrap().upgrade.reason.as_deref(), Some("it failed"));
}

#[tokio::test(start_paused = true)]
async fn version_that_is_booted_again_and_again_goes_back_before_its_agent_starts() {
    let vm = Vm::new();
    assert!(vm.keep("1", "2"));
    vm.unpack("two");
    for boot in ["first", "second", "second", "third"] {
        assert_eq!(vm.installed(), ["two"; 2]);
        vm.boots(boot);
        vm.watch_until_the_power_is_cut().await;
    }
    assert_eq!(
        (vm.installed(), vm.state()),
        (["one"; 2].map(str::to_owned), Some(UpgradeState::RolledBack))
    );
}

/// istiod may be away by then.
#[tokio::test(start_paused = true)]
async fn version_that_only_waits_is_rolled_back_where_one_served_and_not_after_a_reboot() {
    for (before, boot, rolled_back) in [
        (SERVES, "first", true),
        (SERVES, "second", false),
        (WAITS, "first", false),
    ] {
        let vm = Vm::new();
        vm.agent(before);
        assert!(vm.keep("1", "2"));
        vm.unpack("two");
        vm.agent(WAITS);
        vm.watch_until_the_power_is_cut().await;
        vm.boots(boot);
        vm.watch().await;
        let expected = rolled_back.then_some(UpgradeState::RolledBack);
        assert_eq!(vm.state(), expected, "{before} {boot}");
    }
}

#[tokio::test(start_paused = true)]
async fn configuration_that_was_changed_since_is_nothing_against_a_version() {
    for (configuration, agent, state) in [
        ("another", WAITS, None),
        ("another", GAVE_UP, Some(UpgradeState::RolledBack)),
        ("bad", GAVE_UP, Some(UpgradeState::Trial)),
        ("good", WAITS, Some(UpgradeState::RolledBack)),
    ] {
        let vm = Vm::new();
        assert!(vm.keep("1", "2"));
        vm.unpack("two");
        vm.configure(configuration);
        vm.agent(agent);
        vm.watch().await;
        assert_eq!(vm.state(), state, "{configuration} {agent}");
    }
}

#[tokio::test(start_paused = true)]
async fn application_that_is_not_well_is_nothing_against_a_version() {
    for (code, state) in [("probe-failing", None), ("envoy-down", Some(UpgradeState::RolledBack))] {
        let vm = Vm::new();
        assert!(vm.keep("1", "2"));
        vm.unpack("two");
        let said = format!("ActiveState=active\nSubState=running\nMainPID=7\nStatusText=not serving [{code}]: x");
        vm.agent(said.leak());
        vm.watch().await;
        assert_eq!(vm.state(), state, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn units_that_only_the_newer_version_has_go_with_it() {
    let vm = Vm::new();
    assert!(vm.keep("1", "2"));
    vm.unpack("two");
    let [newer, others] = ["istio-vm-agent-newer.service", "other.service"].map(|name| Path::new(UNITS).join(name));
    for unit in [&newer, &others] {
        vm.host.write(unit, "unit", 0o644, None).unwrap();
    }
    vm.agent(GAVE_UP);
    vm.watch().await;
    assert_eq!(vm.installed(), ["one"; 2]);
    assert_eq!([&newer, &others].map(|unit| vm.host.exists(unit)), [false, true]);
    let orders = vm.orders();
    let expected = [
        "systemctl stop --no-block istio-vm-agent-newer.service",
        "systemctl daemon-reload",
    ];
    assert_eq!(orders[..2], expected);
}

#[test]
fn agent_that_does_not_run_leaves_nothing_to_go_back_to() {
    let vm = Vm::new();
    for state in [STOPPED, GAVE_UP] {
        vm.agent(state);
        assert!(!vm.keep("1", "2"), "{state}");
        assert_eq!(vm.record(), None);
        assert!(!vm.host.exists(Path::new(KEPT)));
    }
}
