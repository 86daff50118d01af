//! Another container on the bridge.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use istio_vm_agent::facts::{EnvoyState, InterceptState, Membership};
use istio_vm_agent::intercept::{self, Options};
use istio_vm_agent::supervise::Supervisor;
use tokio::sync::watch;

use super::docker::{FIRST_CONTAINER, FIRST_CONTAINER6};
use super::rig::*;

/// A port of the application's container that nobody captures, and the one that is.
const FREE: u16 = 3551;
const CAPTURED: u16 = 3550;

/// Headers of IPv6 (IANA, "Assigned Internet Protocol Numbers").
const UDP: u8 = 17;
const OPTIONS: u8 = 60;

const SECOND_CONTAINER: &str = "172.17.0.3";
/// An address of the bridge's network that nobody has.
const NOBODYS: &str = "172.17.0.77";

/// Every host on the link (RFC 4291, section 2.7.1).
const ALL_NODES: &str = "ff02::1";

/// Over the bridge, and by a route through this VM, each with and without br_netfilter.
pub(crate) fn reach_only_what_is_not_captured(rig: &Rig, container: &str, other: &str) {
    rig.serve(container, "::", FREE, "free");
    for port in [FREE, CAPTURED] {
        rig.serve_udp(container, "::", port, "by UDP");
    }
    let link_local = link_local(container);
    let inside = |line: &str| command(&format!("nsenter --net={other} {line}"));
    for filtered in [1, 0] {
        for kind in ["iptables", "ip6tables"] {
            rig.vm(&format!("sysctl -qw net.bridge.bridge-nf-call-{kind}={filtered}"));
        }
        for routed in [false, true] {
            if routed {
                inside(&format!("ip route add {FIRST_CONTAINER} via 172.17.0.1"));
                inside(&format!("ip -6 route add {FIRST_CONTAINER6} via fd00:d::1"));
            }
            for ip in [FIRST_CONTAINER, FIRST_CONTAINER6, &link_local] {
                let what = format!("{ip}, routed: {routed}, br_netfilter: {filtered}");
                assert_eq!(by_tcp(rig, other, ip, FREE).as_deref(), Some("free"), "{what}");
                assert_eq!(by_tcp(rig, other, ip, CAPTURED), None, "{what}");
                assert!(by_udp(rig, other, ip, FREE), "{what}");
                assert!(!by_udp(rig, other, ip, CAPTURED), "{what}");
            }
            if routed {
                inside(&format!("ip route del {FIRST_CONTAINER} via 172.17.0.1"));
                inside(&format!("ip -6 route del {FIRST_CONTAINER6} via fd00:d::1"));
            }
        }
        for group in ["172.17.255.255", "255.255.255.255", ALL_NODES] {
            assert!(by_udp(rig, other, group, FREE), "{group}");
            assert!(!by_udp(rig, other, group, CAPTURED), "{group}");
        }
        for tags in ["", "8100", "88a8", "8100 8100", "88a8 8100", "8100 8100 8100"] {
            assert_eq!(tagged(other, CAPTURED, tags), "nobody", "{tags:?}");
        }
        assert_eq!(tagged(other, FREE, "8100"), "by UDP");
        assert_eq!(in_fragments(other, CAPTURED, OPTIONS), "nobody");
        assert_eq!(in_fragments(other, CAPTURED, UDP), "nobody");
        assert_eq!(in_fragments(other, FREE, UDP), "by UDP");
        assert_eq!(forged(other, NOBODYS, CAPTURED), "nobody");
        assert_eq!(forged(other, NOBODYS, FREE), "by UDP");
        for tags in ["", "8100"] {
            advertise(other, tags);
            // What was sent before it has arrived before it.
            assert_eq!(by_tcp(rig, other, FIRST_CONTAINER6, FREE).as_deref(), Some("free"));
            let addresses = command(&format!("nsenter --net={container} ip -6 address show dev eth0"));
            assert!(!addresses.contains("2001:db8:"), "{addresses}");
        }
        assert_eq!(rig.call(&rig.vm, Who::Envoy, FIRST_CONTAINER, CAPTURED), "application");
    }
}

/// While somebody's firewall is flushed again and again.
pub(crate) fn wait_for_a_flush_in_vain(rig: &Rig, facts: &Membership, options: &Options, other: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ready = EnvoyState::Ready {
        pid: 1,
        adopted: false,
        restarts: 0,
        successor: None,
    };
    let (_facts, facts) = watch::channel(Arc::new(facts.clone()));
    let (_envoy, states) = watch::channel(ready);
    let (publish, _published) = watch::channel(InterceptState::default());
    let mut supervisor = Supervisor::default();
    let options = options.clone();
    runtime.block_on(async {
        supervisor.spawn("intercept", Duration::from_secs(10), |scope| {
            intercept::run(scope, options, facts, states, machine(), publish)
        });
        supervisor.newest_ready().await.unwrap();
    });
    let stands = |table: &str| rig.vm("nft list tables").lines().any(|line| line == table);
    eventually("the wall stands", Duration::from_secs(20), || {
        stands("table bridge istio_vm_agent_wall")
    });
    for _ in 0..5 {
        rig.vm("nft flush ruleset");
        eventually("the table is there again", Duration::from_secs(20), || {
            assert_eq!(by_tcp(rig, other, FIRST_CONTAINER, CAPTURED), None);
            stands("table bridge istio_vm_agent")
        });
    }
    runtime.block_on(supervisor.drain());
    let left = rig.vm("nft list tables");
    assert!(!left.contains("istio_vm_agent"), "{left}");
}

/// Who answers; nobody, where there is no answer for so long that on a bridge there will be none.
fn by_tcp(rig: &Rig, ns: &str, ip: &str, port: u16) -> Option<String> {
    rig.at(ns, Who::Root, || {
        let stream = TcpStream::connect_timeout(&scoped(ip, port), Duration::from_millis(300));
        stream.ok().map(heard)
    })
}

/// True when a datagram is answered, by whatever address of the other's.
fn by_udp(rig: &Rig, ns: &str, ip: &str, port: u16) -> bool {
    rig.at(ns, Who::Root, || {
        let to = scoped(ip, port);
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let socket = UdpSocket::bind(address(any, 0)).unwrap();
        socket.set_broadcast(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        socket.send_to(b"?", to).unwrap();
        socket.recv(&mut [0; 64]).is_ok()
    })
}

/// Who answers a datagram beneath tags, which are nothing to it and may hide it from the bridge.
fn tagged(ns: &str, port: u16, tags: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/intercept/tagged.py");
    command(&format!(
        "nsenter --net={ns} python3 {script} {SECOND_CONTAINER} {FIRST_CONTAINER} {port} {tags}"
    ))
}

/// Who answers a datagram in two fragments of which the first begins with a header of this kind.
fn in_fragments(ns: &str, port: u16, header: u8) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/intercept/fragments.py");
    command(&format!(
        "nsenter --net={ns} python3 {script} {FIRST_CONTAINER6} {port} {header}"
    ))
}

/// Who answers a datagram from an address that is not the sender's, which it has taken by forged ARP.
pub(crate) fn forged(ns: &str, source: &str, port: u16) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/intercept/forged.py");
    command(&format!(
        "nsenter --net={ns} python3 {script} {source} {FIRST_CONTAINER} {port}"
    ))
}

/// Plays a router that gives everybody on the bridge an address in 2001:db8::/64.
fn advertise(ns: &str, tags: &str) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/intercept/advertise.py");
    command(&format!("nsenter --net={ns} python3 {script} 2001:db8:: {tags}"));
}

/// A link-local address is one of an interface: the container's only one beside lo.
fn scoped(ip: &str, port: u16) -> SocketAddr {
    match ip.parse().unwrap() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() || ip.is_multicast() => {
            let index = std::fs::read_to_string("/proc/thread-self/net/igmp6").unwrap();
            let of_eth0 = index.lines().find(|line| line.contains("eth0")).unwrap();
            let index = of_eth0.split_whitespace().next().unwrap().parse().unwrap();
            SocketAddrV6::new(ip, port, 0, index).into()
        }
        ip => SocketAddr::new(ip, port),
    }
}

fn link_local(ns: &str) -> String {
    let shown = command(&format!("nsenter --net={ns} ip -6 -o address show dev eth0 scope link"));
    let words: Vec<&str> = shown.split_whitespace().collect();
    let address = words.iter().skip_while(|word| **word != "inet6").nth(1).unwrap();
    let (ip, _) = address.split_once('/').unwrap();
    ip.parse::<Ipv6Addr>().unwrap().to_string()
}
