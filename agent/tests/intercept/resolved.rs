//! systemd-resolved with its module of the C library: programs learn the mesh's names after what `check` says to do.

use std::fs;
use std::net::UdpSocket;
use std::path::PathBuf;

use istio_vm_agent::config::Backend;
use istio_vm_agent::dns::DnsPart;
use istio_vm_agent::host::{Host, System};
use istio_vm_agent::intercept;
use istio_vm_agent::part::Level;

use super::installed::{Installed, START};
use super::rig::*;

const OURS: &str = "cart.shop.svc.cluster.local";
/// The answers of the agent's DNS, and of the server that systemd-resolved asks.
const OF_THE_MESH: [u8; 4] = [10, 0, 0, 7];
const OF_THE_WORLD: [u8; 4] = [203, 0, 113, 7];
const STUB: &str = "127.0.0.53";
const UPLINK: &str = "203.0.113.53";
const USER: &str = "systemd-resolve:x:991:991::/:/usr/sbin/nologin\n";

#[test]
fn names_come_by_dns_after_the_fix_of_nsswitch() {
    let vm = vm("resolved", "no", STUB);
    assert!(vm.look_up("www.example.org").starts_with("203.0.113.7 "));
    // It takes names below .local for none of DNS.
    assert_eq!(vm.look_up(OURS), "");
    vm.fix_nsswitch();
    assert!(vm.look_up(OURS).starts_with("10.0.0.7 "));
}

/// Nobody has signed them, and nobody but the agent answers: neither resolved, at its stub, nor a server that programs ask by
/// its own address.
#[test]
fn names_of_the_mesh_come_by_dns_whatever_resolved_wants_signed() {
    for (test, dnssec, asked) in [
        ("resolved-yes", "yes", STUB),
        ("resolved-may", "allow-downgrade", STUB),
        ("resolved-link", "yes", UPLINK),
    ] {
        let vm = vm(test, dnssec, asked);
        let of_others = vm.look_up("www.example.net");
        assert_eq!(of_others.is_empty(), dnssec == "yes", "{test}: {of_others}");
        vm.fix_nsswitch();
        assert!(vm.look_up(OURS).starts_with("10.0.0.7 "), "{test}");
    }
}

/// A VM whose programs ask systemd-resolved by its module.
struct Resolved {
    installed: Installed,
    /// Has the module.
    library: String,
}

/// One that wants answers signed as `dnssec` says; programs that ask by DNS ask `asked`.
fn vm(test: &str, dnssec: &str, asked: &str) -> Resolved {
    let mut vm = Installed::new(test, "/etc");
    let etc = vm.folder.path().join("etc");
    let append = |file: &str, line: &str| {
        let text = fs::read_to_string(etc.join(file)).unwrap();
        fs::write(etc.join(file), text + line).unwrap();
    };
    append("passwd", USER);
    append("group", "systemd-resolve:x:991:\n");
    fs::create_dir_all(etc.join("systemd")).unwrap();
    let resolved = format!("[Resolve]\nDNS={UPLINK}\nFallbackDNS=\nDNSSEC={dnssec}\nLLMNR=no\nMulticastDNS=no\n");
    fs::write(etc.join("systemd/resolved.conf"), resolved).unwrap();
    fs::write(
        etc.join("nsswitch.conf"),
        "hosts: files resolve [!UNAVAIL=return] dns\n",
    )
    .unwrap();
    let _ = fs::remove_file(etc.join("resolv.conf"));
    let resolv_conf = format!("nameserver {asked}\n");
    fs::write(etc.join("resolv.conf"), &resolv_conf).unwrap();
    let packages = packages();
    vm.shell("mkdir -p /run/systemd/resolve && chown 991:991 /run/systemd/resolve")
        .unwrap();
    vm.start(&format!("{}/lib/systemd/systemd-resolved", packages.display()));
    eventually("systemd-resolved", START, || {
        vm.shell("test -S /run/systemd/resolve/io.systemd.Resolve").is_ok()
    });
    let rig = &vm.rig;
    serve_names(rig, &rig.vm, "127.0.0.1:15053", OF_THE_MESH);
    serve_names(rig, &rig.peer, "203.0.113.53:53", OF_THE_WORLD);
    fs::write(rig.host.real_path("/etc/resolv.conf".as_ref()), resolv_conf).unwrap();
    let change = intercept::change(&membership(), &rig.options(Backend::Nftables)).unwrap();
    change.apply(&rig.host).unwrap();
    Resolved {
        installed: vm,
        library: format!(
            "LD_LIBRARY_PATH=$(dirname {}/usr/lib/*/libnss_resolve.so.2)",
            packages.display()
        ),
    }
}

impl Resolved {
    fn look_up(&self, name: &str) -> String {
        let line = format!("{} getent ahostsv4 {name}", self.library);
        self.installed.shell(&line).unwrap_or_default()
    }

    /// Does what `check` says to do, which leaves nothing to say.
    fn fix_nsswitch(&self) {
        let host = Host::new(self.installed.folder.path(), System);
        let found = finding(&DnsPart, "nsswitch", &host);
        assert_eq!(found.level, Level::Warning, "{found:?}");
        self.installed.shell(&found.fix.unwrap()).unwrap();
        assert_eq!(finding(&DnsPart, "nsswitch", &host).level, Level::Ok);
    }
}

/// Where `tests/setup` has unpacked systemd-resolved and libnss-resolve, which installed would take over this machine's names.
fn packages() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    let packages = cache.unwrap().join("istio-vm-agent/systemd-resolved");
    assert!(packages.exists(), "{} is missing: run tests/setup", packages.display());
    packages
}

/// A server of names that have this address, each of them, and no other.
fn serve_names(rig: &Rig, ns: &str, at: &str, address: [u8; 4]) {
    let socket = rig.at(ns, Who::Agent, || UdpSocket::bind(at).unwrap());
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            let _ = socket.send_to(&answer(&query[..length], address), from);
        }
    });
}

/// The question again, as an answer; for an address of version 4 with one (RFC 1035, section 4.1).
fn answer(query: &[u8], address: [u8; 4]) -> Vec<u8> {
    let name = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let is_a = query[name..name + 2] == [0, 1];
    let mut answer = query[..name + 4].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
    if is_a {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend(address);
    }
    answer
}
