use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::*;
use crate::control_plane::fixtures::{Ca, issued_by};
use crate::host::Invocation;
use crate::host::fixtures::Answers;

const STORE: &str = "/var/lib/istio-vm-agent/istio-sidecar.json";
const HOSTS: &str = "127.0.0.1 localhost\n10.0.0.2 istiod.istio-system.svc\n";

/// Number of the user istio-proxy.
const USER: u32 = 998;

struct Vm {
    root: tempfile::TempDir,
    host: Host,
}

impl Vm {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let users = Answers(|call: &Invocation| {
            assert_eq!(call.to_string(), "getent passwd istio-proxy");
            Ok(format!("istio-proxy:x:{USER}:{USER}::/:/bin/sh\n"))
        });
        let host = Host::new(root.path(), users);
        let vm = Self { root, host };
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

impl Vm {
    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(&path[1..])
    }

    /// The files that are left, and why.
    fn left(&self, settings: &Settings) -> String {
        let taken = take_away(&self.host, settings, Path::new(STORE)).unwrap();
        let left: Vec<String> = taken
            .into_iter()
            .filter(|it| it.starts_with("left as it is: "))
            .collect();
        assert!(!self.host.text(Path::new(STORE)).contains("root:secret"));
        left.join("\n")
    }
}

fn told() -> Settings {
    Settings::new(BTreeMap::new(), BTreeMap::new())
}

#[test]
fn backup_gives_all_back_as_it_was() {
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
    // As it was, but for a token that all could read.
    let mut before = before;
    before.get_mut("/var/run/secrets/tokens/istio-token").unwrap().1 = 0o600;
    vm.put_back(None);
    assert_eq!(vm.state(), before);
    vm.put_back(None);
    assert_eq!(vm.state(), before, "twice is once");
    remove_backup(&vm.host, Path::new(STORE)).unwrap();
    vm.put_back(None);
    assert_eq!(vm.state(), before, "there is nothing to put back");
}

#[test]
fn backup_of_an_interrupted_switch_is_not_forgotten_by_the_next() {
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
fn certificate_that_was_renewed_meanwhile_is_given_back() {
    let vm = Vm::new();
    vm.take();
    let now = SystemTime::now();
    let newer = issued_by(&Ca::new("mesh"), now, now + Duration::from_secs(60));
    vm.put_back(Some(&newer));
    let state = vm.state();
    assert_eq!(state["/etc/certs/key.pem"], (newer.key.expose_pem().to_owned(), 0o600));
    assert_eq!(state["/etc/certs/cert-chain.pem"], (newer.chain_pem, 0o640));
    assert_eq!(state["/etc/certs/root-cert.pem"].0, "the root");
}

#[test]
fn files_that_others_gave_the_sidecar_are_theirs() {
    let vm = Vm::new();
    let elsewhere = BTreeMap::from([("OUTPUT_CERTS".to_owned(), "/var/lib/istio/certs".to_owned())]);
    let settings = Settings::new(elsewhere, BTreeMap::new());
    let taken = take_away(&vm.host, &settings, Path::new(STORE)).unwrap();
    assert_eq!(taken.len(), 2, "the token and the line: {taken:?}");
    assert!(vm.state().contains_key("/etc/certs/key.pem"));
}

#[test]
fn backup_that_is_damaged_is_named_and_not_quoted() {
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

#[test]
fn files_that_the_sidecars_user_plants_are_neither_read_nor_taken_nor_given_back() {
    use std::os::unix::fs::{chown, symlink};
    let vm = Vm::new();
    vm.host.make_directory(Path::new("/roots"), 0o700, None).unwrap();
    for name in ["shadow", "key.pem", "istio-token"] {
        let path = Path::new("/roots").join(name);
        vm.host.write(&path, "root:secret", 0o600, None).unwrap();
    }
    let untouched = || {
        assert_eq!(vm.host.names_in(Path::new("/roots")).unwrap().len(), 3);
    };
    for folder in ["/etc/certs", "/var/run/secrets", "/var/run/secrets/tokens"] {
        chown(vm.at(folder), Some(USER), Some(USER)).unwrap();
    }
    // A link in place of the token.
    let token = vm.at("/var/run/secrets/tokens/istio-token");
    std::fs::remove_file(&token).unwrap();
    symlink(vm.at("/roots/shadow"), &token).unwrap();
    let left = vm.left(&told());
    assert!(left.contains("istio-token: failed to read: is a link"), "{left}");
    untouched();
    // Another name of root's file.
    std::fs::remove_file(&token).unwrap();
    std::fs::hard_link(vm.at("/roots/shadow"), &token).unwrap();
    assert!(vm.left(&told()).contains("has another name"));
    untouched();
    // A link in place of the folder.
    std::fs::remove_dir_all(vm.at("/var/run/secrets/tokens")).unwrap();
    symlink(vm.at("/roots"), vm.at("/var/run/secrets/tokens")).unwrap();
    assert!(vm.left(&told()).contains("is behind a link"));
    untouched();
    // Root's own folder, by a setting that its user may write.
    std::fs::remove_file(vm.at("/var/run/secrets/tokens")).unwrap();
    let elsewhere = BTreeMap::from([("OUTPUT_CERTS".to_owned(), "/roots".to_owned())]);
    let left = vm.left(&Settings::new(elsewhere, BTreeMap::new()));
    assert!(left.contains("/roots/key.pem: belongs to user 0"), "{left}");
    untouched();
}

#[test]
fn backup_is_put_back_through_no_link() {
    use std::os::unix::fs::{chown, symlink};
    let vm = Vm::new();
    chown(vm.at("/var/run/secrets"), Some(USER), Some(USER)).unwrap();
    vm.take();
    vm.host.make_directory(Path::new("/roots"), 0o700, None).unwrap();
    std::fs::remove_dir_all(vm.at("/var/run/secrets/tokens")).unwrap();
    symlink(vm.at("/roots"), vm.at("/var/run/secrets/tokens")).unwrap();
    let error = format!("{:#}", put_back(&vm.host, Path::new(STORE), None).unwrap_err());
    assert!(error.contains("is behind a link"), "{error}");
    assert_eq!(vm.host.names_in(Path::new("/roots")).unwrap(), [""; 0]);
}
