//! A VM in a folder of its own, with programs that a test installs and an operator runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpSocket;

use crate::cli::check::examination::examine_on;
use crate::cli::check::selector::Selector;
use crate::docker::fake::Docker;
use crate::facts::HostBridge;
use crate::host::fixtures::{failed, not_installed};
use crate::host::{CommandError, Host, Invocation, Run};
use crate::join::tests::BUNDLE;
use crate::part::{Finding, Level};

pub(super) const CONFIG: &str = "/etc/istio-vm-agent/config.toml";
pub(super) const CLUSTER_ENV: &str = "/etc/istio-vm-agent/bundle/cluster.env";
pub(super) const AGENT: &str = "istio-vm-agent.service";
const JOIN: &str =
    "[join]\ndirectory = { path = \"/etc/istio-vm-agent/bundle\" }\n[network]\naddress = \"10.200.0.3\"\n";

/// The programs of a VM, and what systemd knows.
#[derive(Debug, Default)]
pub(super) struct Programs {
    /// Programs that are installed, and do what they are told.
    pub(super) installed: BTreeSet<&'static str>,
    /// Properties of systemd's units.
    pub(super) units: BTreeMap<String, BTreeMap<&'static str, &'static str>>,
    pub(super) is_synchronized: bool,
    /// True when netfilter has rules for bridges.
    pub(super) has_bridge_rules: bool,
    /// Files that user istio-proxy can't read.
    pub(super) kept: BTreeSet<&'static str>,
}

#[derive(Clone, Debug)]
struct Shared(Arc<Mutex<Programs>>);

impl Run for Shared {
    fn run(&self, call: &Invocation) -> Result<String, CommandError> {
        let programs = self.0.lock().unwrap();
        let argv: Vec<&str> = call.argv.iter().map(String::as_str).collect();
        match argv.as_slice() {
            ["systemctl", "show", properties, rest @ ..] if !programs.units.is_empty() => {
                let (named, none) = (rest.last().copied().unwrap_or_default(), BTreeMap::new());
                let unit = programs.units.get(named).unwrap_or(&none);
                let asked = properties.trim_start_matches("--property=").split(',');
                let value = |name: &str| unit.get(name).copied().unwrap_or_default();
                Ok(match rest {
                    ["--value", _] => asked.map(|name| value(name).to_owned()).collect(),
                    _ => asked.map(|name| format!("{name}={}\n", value(name))).collect(),
                })
            }
            ["timedatectl", "show", ..] => Ok(if programs.is_synchronized { "yes\n" } else { "no\n" }.to_owned()),
            ["test", "-r", path] if programs.kept.contains(path) => failed(call, ""),
            ["test", ..] => Ok(String::new()),
            ["nft", ..] if !programs.installed.contains("nft") => not_installed(call),
            ["nft", "list", ..] => failed(call, "Error: No such file or directory"),
            ["nft", ..] if call.stdin.contains("table bridge") && !programs.has_bridge_rules => {
                failed(call, "Error: Could not process rule: Operation not supported")
            }
            ["nft", ..] => Ok(String::new()),
            _ => not_installed(call),
        }
    }

    /// Docker's.
    fn bridges(&self) -> io::Result<Vec<HostBridge>> {
        Ok(vec![HostBridge {
            interface: "docker0".to_owned(),
            addresses: Vec::new(),
            networks: vec!["172.17.0.0/16".parse().unwrap()],
            is_inner: true,
        }])
    }
}

pub(super) struct Vm {
    root: tempfile::TempDir,
    pub(super) host: Host,
    programs: Arc<Mutex<Programs>>,
    /// The VM's dockerd.
    pub(super) docker: Docker,
    /// Ports that somebody has.
    pub(super) held: Vec<TcpListener>,
    /// A port that the application will have.
    pub(super) silent: Option<TcpSocket>,
}

impl Vm {
    /// One without a fault, which joins by a bundle.
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let programs = Programs {
            installed: ["nft"].into(),
            is_synchronized: true,
            has_bridge_rules: true,
            ..Programs::default()
        };
        let programs = Arc::new(Mutex::new(programs));
        let vm = Self {
            host: Host::new(root.path(), Shared(programs.clone())),
            root,
            programs,
            docker: Docker::started(),
            held: Vec::new(),
            silent: None,
        };
        vm.write(CONFIG, JOIN);
        for (name, text) in BUNDLE {
            vm.write(&format!("/etc/istio-vm-agent/bundle/{name}"), text);
        }
        vm.write("/etc/ssl/certs/ca-certificates.crt", "");
        vm.write("/etc/hosts", "127.0.0.1 localhost\n");
        vm
    }

    pub(super) fn programs(&self) -> MutexGuard<'_, Programs> {
        self.programs.lock().unwrap()
    }

    /// A file of the VM as this machine has it.
    pub(super) fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path.trim_start_matches('/'))
    }

    /// Writes a file and what folders it needs.
    pub(super) fn write(&self, path: &str, text: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub(super) fn text(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// Puts `to` in the place of `from`, which is there.
    pub(super) fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.text(path);
        assert!(text.contains(from), "{path} has no {from:?}");
        self.write(path, &text.replace(from, to));
    }

    /// Writes more into the configuration.
    pub(super) fn configure(&self, text: &str) {
        self.write(CONFIG, &(self.text(CONFIG) + text));
    }

    /// Writes `table.key = value` into the configuration, in the place of what is there.
    pub(super) fn set(&self, line: &str) {
        let (key, value) = line.split_once(" = ").unwrap();
        let mut config: toml::Table = self.text(CONFIG).parse().unwrap();
        let (tables, key) = key.rsplit_once('.').unwrap();
        let mut table = &mut config;
        for name in tables.split('.') {
            let entry = table.entry(name).or_insert_with(|| toml::Table::new().into());
            table = entry.as_table_mut().unwrap();
        }
        let value = format!("x = {value}").parse::<toml::Table>().unwrap()["x"].clone();
        table.insert(key.to_owned(), value);
        self.write(CONFIG, &toml::to_string(&config).unwrap());
    }

    /// Takes the line that has `word` out of a file.
    pub(super) fn take_out(&self, path: &str, word: &str) {
        let text = self.text(path);
        let kept: Vec<&str> = text.lines().filter(|line| !line.contains(word)).collect();
        assert!(kept.len() < text.lines().count(), "{path} has no {word:?}");
        self.write(path, &(kept.join("\n") + "\n"));
    }

    /// Tells systemd's properties of a unit.
    pub(super) fn unit(&self, name: &str, properties: &[(&'static str, &'static str)]) {
        let mut programs = self.programs();
        let unit = programs.units.entry(name.to_owned()).or_default();
        unit.extend(properties.iter().copied());
    }

    /// Findings of `check` with this code.
    pub(super) async fn amiss(&self, code: &str) -> Vec<Finding> {
        let only: Selector = [code.parse().unwrap()].into_iter().collect();
        let path = self.at(CONFIG);
        let found = examine_on(&self.host, &path, &only, None, &mut |_| {}).await.unwrap();
        assert!(!found.findings.is_empty(), "{code} is not asked");
        let is_amiss = |finding: &Finding| matches!(finding.level, Level::Warning | Level::Failed);
        found.findings.into_iter().filter(is_amiss).collect()
    }

    /// Runs a command line of a fix.
    ///
    /// # Panics
    /// When it is none that a VM has.
    pub(super) fn run(&self, line: &str) {
        for command in line.split(" && ") {
            let words: Vec<&str> = command.split(' ').collect();
            match words.as_slice() {
                ["sysctl", "-w", settings @ ..] => settings.iter().for_each(|setting| self.sysctl(setting)),
                ["chmod", mode, paths @ ..] => paths.iter().for_each(|path| self.chmod(mode, path)),
                ["systemctl", verb, words @ ..] => self.systemctl(verb, words),
                ["timedatectl", "set-ntp", "true"] => self.programs().is_synchronized = true,
                ["modprobe", "br_netfilter"] => {
                    for kind in ["iptables", "ip6tables"] {
                        self.write(&format!("/proc/sys/net/bridge/bridge-nf-call-{kind}"), "0\n");
                    }
                }
                ["apt-get", "install", "nftables"] => self.programs().installed.extend(["nft"]),
                // One that is installed is left as it is.
                ["apt-get", "install", "ca-certificates"] => {}
                ["update-ca-certificates"] => self.write("/etc/ssl/certs/ca-certificates.crt", ""),
                ["docker", "pull", image] => {
                    self.docker.edit(|engine| engine.images.insert((*image).to_owned()));
                }
                other => panic!("no VM has the command {other:?}"),
            }
        }
    }

    fn sysctl(&self, setting: &str) {
        let (name, value) = setting.split_once('=').unwrap();
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        assert!(self.at(&path).exists(), "cannot stat {path}");
        self.write(&path, &format!("{value}\n"));
    }

    fn chmod(&self, mode: &str, path: &str) {
        if mode == "a+rX" {
            self.programs().kept.remove(path);
            return;
        }
        let mode = u32::from_str_radix(mode, 8).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    fn systemctl(&self, verb: &str, words: &[&str]) {
        let name = |word: &&str| match word.contains('.') {
            true => (*word).to_owned(),
            false => format!("{word}.service"),
        };
        match (verb, words) {
            ("daemon-reload", []) => {
                for unit in self.programs().units.values_mut() {
                    unit.insert("NeedDaemonReload", "no");
                }
            }
            ("enable", [unit]) => self.unit(&name(unit), &[("UnitFileState", "enabled")]),
            ("unmask", [unit]) => self.unit(&name(unit), &[("UnitFileState", "disabled"), ("LoadState", "loaded")]),
            ("disable", [unit]) => self.unit(&name(unit), &[("UnitFileState", "disabled")]),
            ("disable", ["--now", unit]) => {
                let link = format!("/etc/systemd/system/multi-user.target.wants/{}", name(unit));
                let _ = fs::remove_file(self.at(&link));
                self.unit(
                    &name(unit),
                    &[("UnitFileState", "disabled"), ("ActiveState", "inactive")],
                );
            }
            ("restart", [_]) => {}
            other => panic!("no systemctl has {other:?}"),
        }
    }
}

/// The fix that a finding names.
pub(super) fn fix(found: &Finding) -> &str {
    found.fix.as_deref().unwrap()
}

/// The command that a fix begins with, or has in backticks.
pub(super) fn command(fix: &str) -> &str {
    match fix.split_once('`') {
        Some((_, rest)) => rest.split('`').next().unwrap(),
        None => fix.split(", ").next().unwrap(),
    }
}
