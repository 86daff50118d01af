//! Who gets which packet.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use istio_vm_agent::config::Backend;
use istio_vm_agent::host::change::HostChange;
use istio_vm_agent::intercept;

use super::FOREIGN;
use super::rig::*;

/// Servers of a VM in the mesh, and of the world around it.
fn servers(rig: &Rig) {
    for (port, label) in [
        (3550, "application"),
        (8080, "other"),
        (22, "ssh"),
        (15001, "outbound"),
        (15006, "inbound"),
    ] {
        // Both families.
        rig.serve(&rig.vm, "::", port, label);
    }
    rig.serve_dns_and_far();
}

/// Every promise about who gets which packet.
fn redirects(rig: &Rig) {
    let Rig { vm, peer, .. } = rig;
    for (from, ip) in [(peer, VM), (peer, VM6)] {
        assert_eq!(rig.call(from, Who::Root, ip, 3550), "inbound", "{ip}");
        assert_eq!(rig.call(from, Who::Root, ip, 8080), "other", "{ip}");
        assert_eq!(rig.call(from, Who::Root, ip, 22), "ssh", "{ip}");
    }
    for ip in [FAR, FAR6] {
        assert_eq!(rig.call(vm, Who::Root, ip, 80), "outbound", "{ip}");
        assert_eq!(rig.call(vm, Who::Agent, ip, 80), "far", "{ip}");
        assert_eq!(rig.call(vm, Who::Envoy, ip, 80), "far", "{ip}");
    }
    assert_eq!(rig.call(vm, Who::Root, METADATA, 80), "far");
    for ip in ["127.0.0.1", "::1", VM, VM6] {
        assert_eq!(rig.call(vm, Who::Root, ip, 8080), "other", "{ip}");
        assert_eq!(rig.call(vm, Who::Agent, ip, 3550), "application", "{ip}");
    }
    // Envoy calling its own application by the VM's address is a call like any other.
    assert_eq!(rig.call(vm, Who::Envoy, VM, 3550), "inbound");
    assert_eq!(rig.call(vm, Who::Root, RESOLVER, 53), "agent's DNS");
    assert_eq!(rig.call(vm, Who::Agent, RESOLVER, 53), "resolver");
    // The agent asks from the very port that an application asked from: not one connection to conntrack.
    assert_eq!(rig.ask(vm, Who::Root, RESOLVER, 53, 20053), "agent's DNS");
    assert_eq!(rig.ask(vm, Who::Agent, RESOLVER, 53, 20053), "resolver");
    assert_eq!(rig.ask(vm, Who::Envoy, RESOLVER, 53, 20053), "resolver");
}

fn redirects_by(backend: Backend, test: &str) {
    let rig = Rig::new(test);
    servers(&rig);
    assert_eq!(rig.call(&rig.peer, Who::Root, VM, 3550), "application");
    let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
    change.ensure(&rig.host).unwrap();
    redirects(&rig);

    // A mesh of IPv4 alone gives Envoy nothing that listens on IPv6: calls to others go out as they are, and calls
    // to the application never pass Envoy by.
    let mut single = membership();
    single.env.remove("ISTIO_DUAL_STACK");
    let change = intercept::change(&single, &rig.options(backend)).unwrap();
    change.ensure(&rig.host).unwrap();
    assert_eq!(rig.call(&rig.vm, Who::Root, FAR6, 80), "far");
    assert_eq!(rig.call(&rig.vm, Who::Root, FAR, 80), "outbound");
    assert_eq!(rig.call(&rig.peer, Who::Root, VM6, 3550), "inbound");
    let change = intercept::change(&single, &rig.options(backend)).unwrap();
    assert_eq!(
        change.plan(&rig.host).unwrap(),
        None,
        "it is as wanted, and plan shows a change"
    );
}

#[test]
fn nftables_redirects() {
    redirects_by(Backend::Nftables, "nft");
}

#[test]
fn iptables_redirects() {
    redirects_by(Backend::Iptables, "ipt");
}

#[test]
fn docker_s_rules_come_second_whoever_was_first() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("order");
        servers(&rig);
        let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
        rig.feed("iptables-nft-restore --noflush", FOREIGN);
        assert_eq!(rig.call(&rig.peer, Who::Root, VM, 3550), "other");
        change.apply(&rig.host).unwrap();
        assert_eq!(
            rig.call(&rig.peer, Who::Root, VM, 3550),
            "inbound",
            "{backend:?}, Docker first"
        );
        change.revert(&rig.host).unwrap();
        rig.vm("iptables-nft -t nat -F");
        rig.vm("iptables-nft -t nat -X");
        change.apply(&rig.host).unwrap();
        rig.feed("iptables-nft-restore --noflush", FOREIGN);
        assert_eq!(
            rig.call(&rig.peer, Who::Root, VM, 3550),
            "inbound",
            "{backend:?}, ours first"
        );
    }
}

/// A connection that is older than conntrack in this namespace, and on which this VM speaks first.
#[test]
fn open_connection_goes_on() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("open");
        rig.serve(&rig.vm, "::", 15001, "outbound");
        let listener = rig.at(&rig.vm, Who::Root, || TcpListener::bind(address(VM, 22)).unwrap());
        let mut client = rig.at(&rig.peer, Who::Root, || TcpStream::connect(address(VM, 22)).unwrap());
        let mut server = listener.accept().unwrap().0;
        intercept::change(&membership(), &rig.options(backend))
            .unwrap()
            .apply(&rig.host)
            .unwrap();
        for round in 0..3 {
            let mut buffer = [0; 1];
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            server.write_all(b"s").unwrap();
            client
                .read_exact(&mut buffer)
                .unwrap_or_else(|error| panic!("{backend:?} {round}: {error}"));
            client.write_all(b"c").unwrap();
            server
                .read_exact(&mut buffer)
                .unwrap_or_else(|error| panic!("{backend:?} {round}: {error}"));
        }
    }
}

#[test]
fn switch_of_backend_leaves_nothing_of_the_other() {
    let rig = Rig::new("switch");
    servers(&rig);
    let before = rig.snapshot();
    let change = |backend| intercept::change(&membership(), &rig.options(backend)).unwrap();
    change(Backend::Iptables).ensure(&rig.host).unwrap();
    change(Backend::Nftables).ensure(&rig.host).unwrap();
    assert!(!rig.snapshot().contains("ISTIO_"), "{}", rig.snapshot());
    redirects(&rig);
    change(Backend::Iptables).ensure(&rig.host).unwrap();
    assert!(!rig.snapshot().contains("istio_vm_agent"), "{}", rig.snapshot());
    redirects(&rig);
    intercept::owned_rules().revert(&rig.host).unwrap();
    assert_eq!(rig.snapshot(), before);
}
