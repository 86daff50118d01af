//! Another container on the bridge that says it is this VM; without Docker.

use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use istio_vm_agent::config::Backend;
use istio_vm_agent::intercept::{self, Options};

use super::neighbors::forged;
use super::rig::*;

/// The VM on the bridge, and the application beside it.
const GATEWAYS: [&str; 2] = ["172.17.0.1", "fd00:d::1"];
const APPLICATION: [&str; 2] = ["172.17.0.2", "fd00:d::2"];
const OTHER: [&str; 2] = ["172.17.0.3", "fd00:d::3"];
/// A port of everybody's that nobody captures, and the one that `forged.py` sends from.
const FREE: u16 = 3551;
const FORGED: u16 = 40000;

/// A namespace at a port of the VM's bridge.
struct Container(String);

impl Container {
    fn new(rig: &Rig, name: &str, addresses: [&str; 2]) -> Self {
        let (vm, ns) = (&rig.vm, format!("{}-{name}", rig.vm));
        command(&format!("ip netns add {ns}"));
        command(&format!(
            "ip link add veth{name} netns {vm} type veth peer name eth0 netns {ns}"
        ));
        command(&format!("ip -n {vm} link set veth{name} master docker0 up"));
        command(&format!("ip -n {ns} link set eth0 up"));
        for address in addresses {
            let prefix = if address.contains(':') { "64 nodad" } else { "16" };
            command(&format!("ip -n {ns} addr add dev eth0 {address}/{prefix}"));
        }
        rig.serve(&ns, "::", FREE, "a container");
        Self(ns)
    }

    fn says_to_have(&self, address: &str, tags: &str) {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/intercept/claim.py");
        command(&format!("ip netns exec {} python3 {script} {address} {tags}", self.0));
    }

    /// Where it sends what is for an address on the link.
    fn way_to(&self, address: &str) -> String {
        let shown = command(&format!("ip -n {} neigh show {address} dev eth0", self.0));
        let mut words = shown.split_whitespace().skip_while(|word| *word != "lladdr");
        words.nth(1).unwrap_or_default().to_owned()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).status();
    }
}

#[test]
fn no_container_takes_the_vms_place_on_the_applications_bridge() {
    const OWN: &str = "02:42:00:00:00:01";
    let rig = Rig::new("claims");
    command(&format!("ip -n {} link add docker0 address {OWN} type bridge", rig.vm));
    rig.vm("ip addr add 172.17.0.1/16 dev docker0");
    rig.vm("ip addr add fd00:d::1/64 dev docker0 nodad");
    rig.vm("ip link set docker0 up");
    let application = Container::new(&rig, "app", APPLICATION);
    let other = Container::new(&rig, "other", OTHER);
    rig.serve_udp(&application.0, "0.0.0.0", FREE, "by UDP");
    rig.serve(&rig.vm, "::", FREE, "this VM");
    let listener = rig.at(&rig.vm, Who::Root, || UdpSocket::bind((GATEWAYS[0], FORGED)).unwrap());
    listener.set_read_timeout(Some(Duration::from_millis(300))).unwrap();

    let taken = |gateway: &str, own: &str, tags: &str| {
        command(&format!("ip -n {} neigh flush dev eth0", application.0));
        assert_eq!(rig.call(&application.0, Who::Root, gateway, FREE), "this VM");
        other.says_to_have(gateway, tags);
        // What was sent before it has arrived before it.
        assert_eq!(rig.call(&other.0, Who::Root, own, FREE), "a container");
        application.way_to(gateway) != OWN
    };
    let each = |expected: bool| {
        for (gateway, own) in GATEWAYS.iter().zip(APPLICATION) {
            for tags in ["", "8100", "88a8", "8100 8100"] {
                assert_eq!(taken(gateway, own, tags), expected, "{gateway} beneath {tags:?}");
            }
        }
        command(&format!("ip -n {} neigh flush dev eth0", application.0));
        assert_eq!(rig.call(&application.0, Who::Root, GATEWAYS[0], FREE), "this VM");
        // The answer goes to whoever the application takes for this VM.
        let answer = forged(&format!("/run/netns/{}", other.0), GATEWAYS[0], FREE);
        let answered = answer == "by UDP" || listener.recv(&mut [0; 64]).is_ok();
        assert_eq!(answered, expected, "a datagram in this VM's name");
    };
    each(true);
    let options = Options {
        bridge: Some(docker0()),
        ..rig.options(Backend::Nftables)
    };
    let change = intercept::change(&membership(), &options).unwrap();
    change.apply(&rig.host).unwrap();
    each(false);
    change.revert(&rig.host).unwrap();
}
