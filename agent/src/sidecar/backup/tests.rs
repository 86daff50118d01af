use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::*;
use crate::control_plane::fixtures::Ca;
use crate::host::System;

const STORE: &str = "/var/lib/istio-vm-agent/istio-sidecar.json";
const HOSTS: &str = "127.0.0.1 localhost\n10.0.0.2 istiod.istio-system.svc\n";

struct Vm {
    _root: tempfile::TempDir,
    host: Host,
}

impl Vm {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let vm = Self { _root: root, host };
        for (path, text, mode) in [
            ("/etc/certs/key.pem", "the key", 0o600),
            ("/etc/certs/cert-chain.pem", "the chain", 0o640),
            ("/etc/certs/root-cert.pem", "the root", 0o644),
            ("/var/run/secrets/tokens/istio-token", "the token", 0o744),
            ("/etc/istio/proxy/XDS", "", 0o666),
            ("/etc/hosts", HOSTS, 0o644),
        ] {
            let path = Path::new(path);
            vm.host.make_directory(path.parent().unwrap(), 0o755, None).unwrap();
            vm.host.write(path, text, mode, None).unwrap();
        }
        vm
    }

    fn take(&self) -> Vec<String> {
        take_away(&self.host, &told(), Path::new(STORE)).unwrap()
    }

    fn put_back(&self, newer: Option<&Credentials>) {
        put_back(&self.host, Path::new(STORE), newer).unwrap();
    }

    fn before(&self) -> Option<Before> {
        before(&self.host, Path::new(STORE)).unwrap()
    }

    /// Text and mode of what is there.
    fn state(&self) -> BTreeMap<&'static str, (String, u32)> {
        [
            "/etc/certs/key.pem",
            "/etc/certs/cert-chain.pem",
            "/etc/certs/root-cert.pem",
            "/var/run/secrets/tokens/istio-token",
            "/etc/hosts",
        ]
        .into_iter()
        .filter_map(|path| {
            let meta = self.host.meta(Path::new(path)).unwrap()?;
            Some((path, (self.host.text(Path::new(path)), meta.mode() & 0o7777)))
        })
        .collect()
    }
}

fn told() -> Settings {
    Settings::new(BTreeMap::new(), BTreeMap::new())
}

#[test]
fn all_goes_and_comes_back_as_it_was() {
    let vm = Vm::new();
    let before = vm.state();
    let taken = vm.take();
    assert_eq!(taken.len(), 5, "{taken:?}");
    assert_eq!(
        vm.state(),
        BTreeMap::from([("/etc/hosts", ("127.0.0.1 localhost\n".to_owned(), 0o644))])
    );
    assert!(vm.host.meta(Path::new("/etc/istio/proxy/XDS")).unwrap().is_none());
    let mode = vm.host.meta(Path::new(STORE)).unwrap().unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);

    // A second switch finds nothing, and forgets nothing.
    assert_eq!(vm.take(), taken);
    vm.put_back(None);
    assert_eq!(vm.state(), before);
    vm.put_back(None);
    assert_eq!(vm.state(), before, "twice is once");
    remove_backup(&vm.host, Path::new(STORE)).unwrap();
    vm.put_back(None);
    assert_eq!(vm.state(), before, "there is nothing to put back");
}

#[test]
fn how_it_stood_before_an_interrupted_switch_is_not_forgotten_by_the_next() {
    let vm = Vm::new();
    assert_eq!(vm.before(), None);
    let first = Before {
        enabled: true,
        started: false,
        user: Some((998, 997)),
    };
    remember(&vm.host, first, Path::new(STORE)).unwrap();
    assert_eq!(vm.state()["/etc/hosts"].0, HOSTS, "nothing is touched by that");
    // It was interrupted after it had disabled the unit and changed the number.
    let second = Before {
        enabled: false,
        started: true,
        user: None,
    };
    remember(&vm.host, second, Path::new(STORE)).unwrap();
    vm.take();
    let wanted = Before { started: true, ..first };
    assert_eq!(vm.before(), Some(wanted));
    // Nor is what it took.
    remember(&vm.host, second, Path::new(STORE)).unwrap();
    assert!(is_interrupted(&vm.host, Path::new(STORE)).unwrap());
    finished(&vm.host, Path::new(STORE)).unwrap();
    assert!(!is_interrupted(&vm.host, Path::new(STORE)).unwrap());
    vm.put_back(None);
    assert_eq!(vm.state()["/etc/hosts"].0, HOSTS);
}

#[test]
fn a_certificate_that_was_renewed_meanwhile_is_given_back() {
    let vm = Vm::new();
    vm.take();
    let now = SystemTime::now();
    let newer = Ca::new("mesh").credentials(now, now + Duration::from_secs(60));
    vm.put_back(Some(&newer));
    let state = vm.state();
    assert_eq!(state["/etc/certs/key.pem"], (newer.key.expose_pem().to_owned(), 0o600));
    assert_eq!(state["/etc/certs/cert-chain.pem"], (newer.chain_pem, 0o640));
    assert_eq!(state["/etc/certs/root-cert.pem"].0, "the root");
}

#[test]
fn what_others_gave_it_is_theirs() {
    let vm = Vm::new();
    let elsewhere = BTreeMap::from([("OUTPUT_CERTS".to_owned(), "/var/lib/istio/certs".to_owned())]);
    let settings = Settings::new(elsewhere, BTreeMap::new());
    let taken = take_away(&vm.host, &settings, Path::new(STORE)).unwrap();
    assert_eq!(taken.len(), 2, "the token and the line: {taken:?}");
    assert!(vm.state().contains_key("/etc/certs/key.pem"));
}

#[test]
fn damage_is_named_and_not_quoted() {
    let vm = Vm::new();
    vm.take();
    let text = vm
        .host
        .text(Path::new(STORE))
        .replace("\"version\": 1", "\"version\": \"secret\"");
    vm.host.write(Path::new(STORE), &text, 0o600, None).unwrap();
    let error = put_back(&vm.host, Path::new(STORE), None).unwrap_err().to_string();
    assert!(
        error.contains("is damaged at line 2") && !error.contains("secret"),
        "{error}"
    );
}
