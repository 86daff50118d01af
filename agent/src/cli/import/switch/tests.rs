//! Switches that are cut off before each command that they run, on a machine of files and a few flags.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::tests::{CONFIG, Vm};
use super::*;
use crate::config::Config;
use crate::facts::Membership;
use crate::host::change::HostChange;
use crate::host::{CommandError, Run, System};
use crate::intercept;
use crate::join::Join;
use steps::LEAVE_RULES;

const WANTS: &str = "etc/systemd/system/multi-user.target.wants";
/// Has the numbers of the owner of its files.
const OWNER: &str = "var/lib/istio/owner";
const THEIR_IDS: (u32, u32) = (998, 997);

/// The machine's state that commands see and change, beside files.
#[derive(Clone, Debug, Eq, PartialEq)]
struct State {
    /// True when the kernel takes nftables.
    nft: bool,
    theirs_runs: bool,
    ours_runs: bool,
    /// systemd knows that their unit is to leave its rules.
    leaves_rules: bool,
    ids: (u32, u32),
    /// The chains ISTIO_*, whoever's.
    chains: bool,
    table: bool,
    /// Commands until the power is cut.
    left: usize,
    /// Commands after which calls went past Envoy.
    bypassed: Vec<String>,
}

/// All files, and what else there is.
type Picture = (BTreeMap<PathBuf, String>, State);

#[derive(Clone, Debug)]
struct Machine {
    root: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Run for Machine {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let mut state = self.state();
        if state.left == 0 {
            let reason = std::io::Error::other("the power is cut");
            return Err(CommandError::Io {
                call: Box::new(call.clone()),
                reason,
            });
        }
        state.left -= 1;
        let words: Vec<&str> = call.argv.iter().map(String::as_str).collect();
        let answer = self.answer(&mut state, &words, &call.stdin);
        if !state.chains && !state.table {
            state.bypassed.push(call.to_string());
        }
        answer.ok_or_else(|| CommandError::Failed {
            call: Box::new(call.clone()),
            status: "exit status: 1".to_owned(),
            stderr: "No such file or directory".to_owned(),
        })
    }
}

impl Machine {
    fn new(root: &Path, nft: bool) -> Self {
        let state = State {
            nft,
            theirs_runs: true,
            ours_runs: false,
            leaves_rules: false,
            ids: THEIR_IDS,
            chains: true,
            table: false,
            left: usize::MAX,
            bypassed: Vec::new(),
        };
        Self {
            root: root.to_owned(),
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// `None`: it says no.
    fn answer(&self, state: &mut State, words: &[&str], stdin: &str) -> Option<String> {
        match words {
            ["systemctl", "show", "--property=ActiveState", ..] if state.theirs_runs => return Some("active".into()),
            ["systemctl", "show", ..] => {}
            ["systemctl", "--quiet", words @ ..] => self.systemctl(state, words),
            ["systemctl", "start", OURS] => {
                assert!(!state.theirs_runs && !self.is_enabled(sidecar::UNIT), "two agents");
                assert_eq!(state.ids, account::OURS);
                state.ours_runs = true;
            }
            ["getent", "passwd", "istio-proxy"] => {
                let (uid, gid) = state.ids;
                return Some(format!("istio-proxy:x:{uid}:{gid}::/:/bin/sh"));
            }
            ["groupmod", "--gid", gid, _] => state.ids.1 = gid.parse().unwrap(),
            ["usermod", "--uid", uid, "--gid", gid, _] => {
                state.ids = (uid.parse().unwrap(), gid.parse().unwrap());
            }
            ["chown", ..] => self.chown(words),
            ["nft", "list", "table", "bridge", ..] => return None,
            ["nft", "list", "table", ..] => return state.table.then(|| "table inet istio_vm_agent {\n}\n".into()),
            ["nft", "-c", ..] => return state.nft.then(String::new),
            ["nft", "-f", "-"] if stdin.contains("istio_vm_agent") => state.table = stdin.contains("chain "),
            ["iptables", "--version"] => return Some("iptables v1.8.9 (nf_tables)".into()),
            ["iptables-nft-save"] if state.chains => {
                let jump = "-A PREROUTING -p tcp -j ISTIO_INBOUND";
                return Some(format!(
                    "*nat\n:PREROUTING ACCEPT [0:0]\n:ISTIO_INBOUND - [0:0]\n{jump}\nCOMMIT\n"
                ));
            }
            ["iptables-nft-restore", ..] => state.chains = stdin.contains("-N ISTIO_"),
            ["nft" | "ip" | "iptables-nft-save" | "ip6tables-nft-save", ..] => {}
            other => panic!("{other:?}"),
        }
        Some(String::new())
    }

    fn systemctl(&self, state: &mut State, words: &[&str]) {
        match words {
            ["daemon-reload"] => state.leaves_rules = self.root.join(&LEAVE_RULES[1..]).exists(),
            ["stop", OURS] if state.ours_runs => (state.ours_runs, state.table) = (false, false),
            ["stop", OURS] => {}
            ["stop", sidecar::UNIT] => {
                state.theirs_runs = false;
                state.chains &= state.leaves_rules;
            }
            ["start", sidecar::UNIT] => {
                assert!(!state.ours_runs, "two agents");
                (state.theirs_runs, state.chains) = (true, true);
            }
            ["--no-reload", "enable", unit] => self.write(&format!("{WANTS}/{unit}"), ""),
            ["--no-reload", "disable", unit] => drop(fs::remove_file(self.root.join(WANTS).join(unit))),
            other => panic!("{other:?}"),
        }
    }

    fn chown(&self, words: &[&str]) {
        let [_, _, _, from, to, ..] = words else {
            panic!("{words:?}")
        };
        let owner = fs::read_to_string(self.root.join(OWNER)).unwrap();
        let (user, group) = owner.split_once(':').unwrap();
        let from = from.strip_prefix("--from=").unwrap();
        let owner = match (from.strip_prefix(':'), to.strip_prefix(':')) {
            (Some(from), Some(to)) if from == group => format!("{user}:{to}"),
            (None, None) if from == user => format!("{to}:{group}"),
            _ => return,
        };
        self.write(OWNER, &owner);
    }

    fn write(&self, path: &str, text: &str) {
        let files = Host::new(&self.root, System);
        files.write(Path::new(path), text, 0o644, None).unwrap();
    }

    fn is_enabled(&self, unit: &str) -> bool {
        self.root.join(WANTS).join(unit).exists()
    }

    /// True when an agent starts at boot: ours not beside an enabled one, nor with another user's number.
    fn has_one_to_boot(&self) -> bool {
        self.is_enabled(sidecar::UNIT) || (self.is_enabled(OURS) && self.state().ids == account::OURS)
    }
}

/// A machine where Istio's own agent is in charge, and which was told how to be ours.
struct Fixture {
    vm: Vm,
    machine: Machine,
    config: Config,
    membership: Membership,
    settings: Settings,
}

impl Fixture {
    fn new(nft: bool) -> Self {
        let mut machine = None;
        let vm = Vm::with("", |root| machine.insert(Machine::new(root, nft)).clone());
        vm.write("/lib/systemd/system/istio.service", "");
        vm.write(&format!("/{WANTS}/istio.service"), "");
        vm.write(&format!("/{OWNER}"), &format!("{}:{}", THEIR_IDS.0, THEIR_IDS.1));
        vm.write("/etc/resolv.conf", "nameserver 10.0.0.1\n");
        let plan = vm.plan().unwrap();
        plan.write(&vm.host).unwrap();
        let config = Config::parse(Path::new(CONFIG), &plan.import.config).unwrap();
        let membership = Join::open(&config, &vm.host).unwrap().at_hand().unwrap().unwrap();
        Self {
            settings: super::super::settings(&vm.host).unwrap(),
            machine: machine.unwrap(),
            vm,
            config,
            membership,
        }
    }

    /// Switches, with the power cut before this command.
    fn switch(&self, cut: usize) -> Result<()> {
        self.machine.state().left = usize::MAX;
        let theirs = sidecar::find(&self.vm.host)?.unwrap_or_default();
        self.machine.state().left = cut;
        let within = Duration::from_secs(90);
        let (host, config) = (&self.vm.host, &self.config);
        Switch::new(host, config, &self.membership, &self.settings, &theirs, within).make()
    }

    fn back(&self, cut: usize) -> Result<()> {
        self.machine.state().left = cut;
        let back = Back {
            host: &self.vm.host,
            paths: &self.config.paths,
            start: true,
        };
        back.make(|| intercept::owned_rules().revert(&self.vm.host))
    }

    fn picture(&self) -> Picture {
        let mut files = BTreeMap::new();
        let mut folders = vec![self.vm.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let text = fs::read_to_string(&path).unwrap();
                    files.insert(path.strip_prefix(self.vm.root.path()).unwrap().to_owned(), text);
                }
            }
        }
        let state = self.machine.state().clone();
        let state = State {
            left: 0,
            bypassed: Vec::new(),
            ..state
        };
        (files, state)
    }

    fn expect_switched(&self) {
        let (files, state) = self.picture();
        assert!(state.ours_runs && !state.theirs_runs && !state.leaves_rules);
        assert!(state.table == state.nft && state.chains != state.nft);
        assert_eq!(files[Path::new(OWNER)], "1337:1337");
        let left = [sidecar::UNIT, "istio-token", "key.pem", "istio-vm-agent.conf"];
        let left: Vec<_> = files
            .keys()
            .filter(|path| !path.starts_with("etc/istio-vm-agent") && !path.starts_with("lib"))
            .filter(|path| left.iter().any(|name| path.ends_with(name)))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        assert!(!self.is_interrupted());
        assert_eq!(self.machine.state().bypassed, Vec::<String>::new());
    }

    fn is_interrupted(&self) -> bool {
        sidecar::is_interrupted(&self.vm.host, &self.config.paths.sidecar_backup()).unwrap()
    }
}

/// Runs `case` for each command that `act` runs, on worlds where that is cut off before it; it is given what was there
/// before.
fn at_each_cut(nft: bool, act: fn(&Fixture, usize) -> Result<()>, case: impl Fn(&Fixture, &Picture)) {
    for cut in 0.. {
        let fixture = Fixture::new(nft);
        let before = fixture.picture();
        if act(&fixture, cut).is_ok() {
            assert!(cut > 10, "only {cut} commands");
            return;
        }
        assert!(
            fixture.machine.has_one_to_boot(),
            "none starts when cut before command {cut}"
        );
        case(&fixture, &before);
    }
}

#[test]
fn switch_that_is_cut_off_anywhere_can_be_undone() {
    at_each_cut(true, Fixture::switch, |fixture, before| {
        fixture.back(usize::MAX).unwrap();
        assert_eq!(fixture.picture(), *before);
    });
}

#[test]
fn undo_that_is_cut_off_anywhere_can_be_made_again() {
    let act = |fixture: &Fixture, cut| {
        fixture.switch(usize::MAX)?;
        fixture.back(cut)
    };
    at_each_cut(true, act, |fixture, before| {
        fixture.back(usize::MAX).unwrap();
        assert_eq!(fixture.picture(), *before);
    });
}

#[test]
fn switch_that_is_cut_off_anywhere_can_be_made_again() {
    for nft in [true, false] {
        at_each_cut(nft, Fixture::switch, |fixture, _| {
            let kept = fixture.vm.host.meta(&fixture.config.paths.sidecar_backup()).unwrap();
            assert_eq!(fixture.is_interrupted(), kept.is_some(), "and is told of");
            fixture.switch(usize::MAX).unwrap();
            fixture.expect_switched();
        });
    }
}

#[test]
fn operator_s_own_rules_stay() {
    let mut fixture = Fixture::new(true);
    let own = BTreeMap::from([("ISTIO_CUSTOM_IP_TABLES".to_owned(), "true".to_owned())]);
    fixture.settings = Settings::new(own, BTreeMap::new());
    fixture.config.intercept.backend = crate::config::Backend::None;
    fixture.switch(usize::MAX).unwrap();
    let state = fixture.machine.state().clone();
    assert!(state.ours_runs && state.chains && !state.table);
}
