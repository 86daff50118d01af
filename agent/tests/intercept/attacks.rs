//! Whoever tries to reach the application past Envoy, or to stand where Envoy stands.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use istio_vm_agent::config::Backend;
use istio_vm_agent::facts::Membership;
use istio_vm_agent::intercept;

use super::packet::{ACK, FIN, MD5, PSH, RST, SYN, URG, connect_from, send, send_in_fragments};
use super::rig::*;

/// Time that somebody tries who is to get nothing; on this link an answer takes microseconds.
const SHORT: Duration = Duration::from_millis(300);
const BACKENDS: [Backend; 2] = [Backend::Nftables, Backend::Iptables];

fn all_ports() -> Membership {
    Membership {
        inbound_ports: None,
        ..membership()
    }
}

fn apply(rig: &Rig, facts: &Membership, backend: Backend) {
    intercept::change(facts, &rig.options(backend))
        .unwrap()
        .apply(&rig.host)
        .unwrap();
}

fn vm_with(test: &str, servers: &[(u16, &str)]) -> Rig {
    let rig = Rig::new(test);
    for (port, label) in servers {
        rig.serve(&rig.vm, "::", *port, label);
    }
    rig
}

const MESH: [(u16, &str); 5] = [
    (3550, "application"),
    (40000, "application"),
    (22, "ssh"),
    (15001, "outbound"),
    (15006, "inbound"),
];

/// True when a server of the other side took a connection.
fn connects(rig: &Rig, ns: &str, who: Who, to: SocketAddr) -> bool {
    rig.at(ns, who, || TcpStream::connect_timeout(&to, SHORT).is_ok())
}

/// First a packet that conntrack could take for the middle of a connection, then a connection from the same port.
fn forged(rig: &Rig, facts: &Membership, backend: Backend) {
    let mut port = 20000;
    for (own, vm) in [(PEER, VM), (PEER6, VM6)] {
        for target in facts.inbound_ports.clone().unwrap_or_else(|| vec![3550, 40000]) {
            for flags in [
                ACK,
                ACK | PSH,
                SYN | ACK,
                RST,
                FIN | ACK,
                FIN,
                0,
                URG,
                SYN | FIN,
                SYN | RST,
            ] {
                for options in [&MD5[..], &[]] {
                    port += 1;
                    let (from, to) = (address(own, port), address(vm, target));
                    let answer = rig.at(&rig.peer, Who::Root, || {
                        send(from, to, flags, options);
                        connect_from(from, to, Duration::from_secs(5)).map_or_else(|error| error.to_string(), heard)
                    });
                    let what = format!(
                        "{backend:?}, {to}, flags {flags:#x}, {} bytes of options",
                        options.len()
                    );
                    assert_eq!(answer, "inbound", "{what}");
                }
            }
        }
    }
}

#[test]
fn forged_packet_opens_no_way_past_envoy() {
    for backend in BACKENDS {
        let rig = vm_with("forged", &MESH);
        let mut facts = membership();
        facts.inbound_ports = Some(vec![3550, 40000]);
        for facts in [facts, all_ports()] {
            apply(&rig, &facts, backend);
            forged(&rig, &facts, backend);
            assert_eq!(rig.call(&rig.peer, Who::Root, VM, 22), "ssh");
        }
    }
}

/// Packets of Envoy's pass by the translation that conntrack knows of, not by a port or mark that a packet may bear.
#[test]
fn no_port_mark_or_fragment_opens_a_way_past_envoy() {
    for backend in BACKENDS {
        let rig = vm_with("words", &MESH);
        // Another program's, which marks all that arrives.
        rig.feed("nft -f -", MARKS);
        for facts in [membership(), all_ports()] {
            apply(&rig, &facts, backend);
            for port in [15001, 15006, 15007, 15020, 15021, 15053, 15090, 53, 22] {
                for in_fragments in [true, false] {
                    let what = format!("{backend:?}, from {port}, in fragments: {in_fragments}");
                    assert_eq!(after_an_ack(&rig, port, in_fragments), "inbound", "{what}");
                }
            }
            for port in [15001, 15006, 15007] {
                assert_eq!(call_from(&rig, port, port), None, "{backend:?}, {port}");
            }
        }
    }
}

/// Marks that others are known to use: Istio's, Kubernetes'.
const MARKS: &str = "add table inet other
add chain inet other c { type filter hook prerouting priority -300; }
add rule inet other c meta mark set 0x539
add chain inet other d { type filter hook prerouting priority -199; }
add rule inet other d ct mark set 0x4000
";

/// Who answers a call after a packet that conntrack could take for the middle of a connection.
fn after_an_ack(rig: &Rig, port: u16, in_fragments: bool) -> String {
    let (from, to) = (
        SocketAddrV4::new(PEER.parse().unwrap(), port),
        SocketAddrV4::new(VM.parse().unwrap(), 3550),
    );
    rig.at(&rig.peer, Who::Root, || {
        if in_fragments {
            send_in_fragments(from, to, ACK, &MD5);
        } else {
            send(from.into(), to.into(), ACK, &MD5);
        }
        connect_from(from.into(), to.into(), Duration::from_secs(5)).map_or_else(|error| error.to_string(), heard)
    })
}

/// Who answers a call from a port, if anybody does.
fn call_from(rig: &Rig, port: u16, to: u16) -> Option<String> {
    rig.at(&rig.peer, Who::Root, || {
        connect_from(address(PEER, port), address(VM, to), SHORT)
            .ok()
            .map(heard)
    })
}

/// A connection to the application that nobody redirected.
struct Flow {
    client: TcpStream,
    server: TcpStream,
}

impl Flow {
    fn to(rig: &Rig, port: u16) -> Self {
        let listener = rig.at(&rig.vm, Who::Root, || TcpListener::bind(address(VM, port)).unwrap());
        let client = rig.at(&rig.peer, Who::Root, || TcpStream::connect(address(VM, port)).unwrap());
        let server = listener.accept().unwrap().0;
        server.set_nonblocking(true).unwrap();
        Self { client, server }
    }

    /// True when the application is told what the other side says; `vm_first`: after it has said something itself.
    fn reaches(&mut self, rig: &Rig, vm_first: bool) -> bool {
        if vm_first {
            self.server.write_all(b"first").unwrap();
        }
        self.client.write_all(b"x").unwrap();
        // What comes later than that on the same link has been there before.
        assert_eq!(rig.call(&rig.peer, Who::Root, VM, 22), "ssh");
        match self.server.read_exact(&mut [0; 1]) {
            Ok(()) => true,
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                false
            }
        }
    }
}

#[test]
fn connection_from_before_the_rules_ends() {
    for backend in BACKENDS {
        for facts in [membership(), all_ports()] {
            let rig = vm_with("before", &[(22, "ssh"), (15006, "inbound")]);
            let (mut quiet, mut talking) = (Flow::to(&rig, 3550), Flow::to(&rig, 3551));
            let mut facts = facts;
            facts.inbound_ports = facts.inbound_ports.map(|_| vec![3550, 3551]);
            assert!(quiet.reaches(&rig, false) && talking.reaches(&rig, true));
            apply(&rig, &facts, backend);
            assert!(!quiet.reaches(&rig, false), "{backend:?}");
            assert!(!talking.reaches(&rig, true), "{backend:?}");
        }
    }
}

#[test]
fn connection_made_while_the_rules_were_flushed_ends() {
    for backend in BACKENDS {
        for facts in [membership(), all_ports()] {
            let rig = vm_with("flushed", &[(22, "ssh"), (15006, "inbound")]);
            apply(&rig, &facts, backend);
            rig.vm("nft flush ruleset");
            let mut flow = Flow::to(&rig, 3550);
            assert!(flow.reaches(&rig, true));
            apply(&rig, &facts, backend);
            for vm_first in [false, true] {
                assert!(!flow.reaches(&rig, vm_first), "{backend:?}, {vm_first}");
            }
        }
    }
}

#[test]
fn this_vm_s_own_connections_go_on_where_every_port_is_captured() {
    for backend in BACKENDS {
        let rig = vm_with("own", &MESH);
        rig.serve_dns_and_far();
        // Older than conntrack here.
        let listener = rig.at(&rig.peer, Who::Root, || TcpListener::bind(address(PEER, 5432)).unwrap());
        let mut client = rig.at(&rig.vm, Who::Root, || TcpStream::connect(address(PEER, 5432)).unwrap());
        let mut server = listener.accept().unwrap().0;
        for stream in [&client, &server] {
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        apply(&rig, &all_ports(), backend);
        client.write_all(b"q").unwrap();
        server.read_exact(&mut [0; 1]).unwrap();
        server.write_all(b"a").unwrap();
        client.read_exact(&mut [0; 1]).unwrap();
        for ip in [FAR, FAR6] {
            assert_eq!(rig.call(&rig.vm, Who::Agent, ip, 80), "far", "{backend:?}");
            assert_eq!(rig.call(&rig.vm, Who::Root, ip, 80), "outbound", "{backend:?}");
        }
        // From a port that is no ephemeral one, as NFS does.
        let answer = rig.at(&rig.vm, Who::Agent, || {
            let (from, to) = (address(VM, 800), address(FAR, 80));
            connect_from(from, to, Duration::from_secs(5)).map_or_else(|error| error.to_string(), heard)
        });
        assert_eq!(answer, "far", "{backend:?}");
        assert_eq!(rig.ask(&rig.vm, Who::Agent, RESOLVER, 53, 0), "resolver", "{backend:?}");
    }
}

#[test]
fn envoy_s_ports_are_closed_to_direct_calls() {
    for backend in BACKENDS {
        let rig = vm_with("direct", &MESH);
        rig.serve(&rig.vm, "::", 15007, "container");
        for facts in [membership(), all_ports()] {
            apply(&rig, &facts, backend);
            for port in [15001, 15006, 15007] {
                for ip in [VM, VM6] {
                    let open = connects(&rig, &rig.peer, Who::Root, address(ip, port));
                    assert!(!open, "{backend:?}: {ip}:{port} from outside");
                }
                for ip in ["127.0.0.1", "::1", VM] {
                    let open = connects(&rig, &rig.vm, Who::Nobody, address(ip, port));
                    assert!(!open, "{backend:?}: {ip}:{port} by a user");
                }
            }
        }
    }
}

#[test]
fn user_of_the_vm_reaches_the_application_through_envoy() {
    for backend in BACKENDS {
        let rig = vm_with("user", &MESH);
        apply(&rig, &membership(), backend);
        for ip in ["127.0.0.1", "127.0.0.2", "::1", VM, VM6] {
            assert_eq!(rig.call(&rig.vm, Who::Nobody, ip, 3550), "inbound", "{backend:?}: {ip}");
            assert_eq!(
                rig.call(&rig.vm, Who::Nobody, ip, 40000),
                "application",
                "{backend:?}: {ip}"
            );
            assert_eq!(
                rig.call(&rig.vm, Who::Agent, ip, 3550),
                "application",
                "{backend:?}: {ip}"
            );
        }
        let mut options = rig.options(backend);
        options.config.direct_uids = vec![65534];
        intercept::change(&membership(), &options)
            .unwrap()
            .apply(&rig.host)
            .unwrap();
        assert_eq!(
            rig.call(&rig.vm, Who::Nobody, "127.0.0.1", 3550),
            "application",
            "{backend:?}"
        );
    }
}

/// True when a datagram is answered.
fn answered(rig: &Rig, ns: &str, who: Who, to: SocketAddr) -> bool {
    rig.at(ns, who, || {
        let any = if to.is_ipv4() { "0.0.0.0" } else { "::" };
        let socket = UdpSocket::bind(address(any, 0)).unwrap();
        socket.set_read_timeout(Some(SHORT)).unwrap();
        socket.connect(to).unwrap();
        // What is dropped on its way out is an error to its sender.
        socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok()
    })
}

#[test]
fn application_is_not_reached_by_udp_either() {
    for backend in BACKENDS {
        let rig = Rig::new("udp");
        for port in [3550, 3551] {
            rig.serve_udp(&rig.vm, "::", port, "application");
        }
        apply(&rig, &membership(), backend);
        for ip in [VM, VM6] {
            assert!(
                !answered(&rig, &rig.peer, Who::Root, address(ip, 3550)),
                "{backend:?}: {ip}"
            );
            assert!(
                answered(&rig, &rig.peer, Who::Root, address(ip, 3551)),
                "{backend:?}: {ip}"
            );
        }
        assert!(!answered(&rig, &rig.vm, Who::Nobody, address(VM, 3550)), "{backend:?}");
    }
}

#[test]
fn nobody_answers_in_envoy_s_or_the_agent_s_place() {
    for backend in BACKENDS {
        let rig = Rig::new("impostor");
        for port in [15001, 15006, 15007, 15020, 15021, 15053, 15090] {
            rig.serve_as(&rig.vm, Who::Nobody, "::", port, "impostor");
        }
        apply(&rig, &membership(), backend);
        assert!(!connects(&rig, &rig.vm, Who::Root, address(FAR, 80)), "{backend:?}");
        for ip in [VM, VM6] {
            for port in [3550, 15020, 15021, 15090] {
                let open = connects(&rig, &rig.peer, Who::Root, address(ip, port));
                assert!(!open, "{backend:?}: {ip}:{port}");
            }
        }
        assert!(
            !connects(&rig, &rig.vm, Who::Root, address(RESOLVER, 53)),
            "{backend:?}"
        );
    }
}

/// A listener whose queue is full answers with SYN cookies, which are of no socket; with 2 it always does (ip-sysctl).
#[test]
fn flood_of_first_packets_shuts_nobody_out() {
    for backend in BACKENDS {
        let rig = vm_with("flood", &MESH);
        rig.vm("sysctl -qw net.ipv4.tcp_syncookies=2");
        apply(&rig, &membership(), backend);
        for ip in [VM, VM6] {
            assert_eq!(rig.call(&rig.peer, Who::Root, ip, 3550), "inbound", "{backend:?}: {ip}");
        }
    }
}

#[test]
fn this_vm_s_queries_are_answered_on_a_port_of_the_application() {
    for backend in BACKENDS {
        let rig = Rig::new("query");
        rig.serve_udp(&rig.peer, RESOLVER, 53, "resolver");
        apply(&rig, &membership(), backend);
        assert_eq!(
            rig.ask(&rig.vm, Who::Agent, RESOLVER, 53, 3550),
            "resolver",
            "{backend:?}"
        );
    }
}

#[test]
fn user_s_connection_from_before_the_rules_ends() {
    for backend in BACKENDS {
        let rig = vm_with("old-user", &[(22, "ssh")]);
        let listener = rig.at(&rig.vm, Who::Root, || TcpListener::bind(address(VM, 3550)).unwrap());
        let client = rig.at(&rig.vm, Who::Nobody, || TcpStream::connect(address(VM, 3550)).unwrap());
        let server = listener.accept().unwrap().0;
        server.set_nonblocking(true).unwrap();
        let mut flow = Flow { client, server };
        assert!(flow.reaches(&rig, false));
        apply(&rig, &membership(), backend);
        assert!(!flow.reaches(&rig, false), "{backend:?}");
    }
}

/// As the guard of a boot puts them in: nothing for what leaves.
#[test]
fn rules_of_a_boot_close_the_application() {
    for backend in BACKENDS {
        let rig = vm_with("boot", &[(3550, "application"), (22, "ssh")]);
        rig.serve_dns_and_far();
        let options = rig.options(backend);
        assert!(intercept::guard_as_before(&options).unwrap().is_none());
        intercept::guard(&membership(), &options)
            .unwrap()
            .apply(&rig.host)
            .unwrap();
        for ip in [VM, VM6] {
            assert!(!connects(&rig, &rig.peer, Who::Root, address(ip, 3550)), "{backend:?}");
        }
        assert!(
            !connects(&rig, &rig.vm, Who::Nobody, address("127.0.0.1", 3550)),
            "{backend:?}"
        );
        assert_eq!(rig.call(&rig.vm, Who::Nobody, FAR, 80), "far", "{backend:?}");
        assert_eq!(rig.call(&rig.peer, Who::Root, VM, 22), "ssh", "{backend:?}");
    }
}
