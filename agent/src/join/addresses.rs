//! The VM on its network: its name, and the addresses that the mesh is told of.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use nix::unistd::gethostname;

use crate::config::mesh_address;
use crate::host::network;

/// Longest wait for the address of a control plane's name, to which the route is asked.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(700);

/// The machine's own account of itself.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    /// Host name, domain included where it has one.
    pub(super) name: String,
    /// Interfaces that are up, each with one address.
    pub(super) interfaces: Vec<(String, IpAddr)>,
    /// The source address that packets to `host:port` leave with.
    pub(super) source_towards: fn(&str) -> io::Result<IpAddr>,
    /// The time.
    pub(super) now: SystemTime,
}

impl Machine {
    /// The machine as it is now.
    pub(super) fn observe() -> Self {
        let interfaces = network::interfaces().unwrap_or_else(|error| {
            tracing::warn!("failed to list the VM's addresses: {error}");
            Vec::new()
        });
        Self {
            name: gethostname().unwrap_or_default().to_string_lossy().into_owned(),
            interfaces,
            source_towards: |peer| network::source_towards(resolved(peer)?),
            now: SystemTime::now(),
        }
    }

    /// The name up to the first dot.
    pub(super) fn short_name(&self) -> &str {
        self.name.split('.').next().unwrap_or_default()
    }

    /// The VM's addresses in the mesh. The first is `given`, else that of the route to one of `peers`
    /// (`host:port`, tried in order), else that of the default route. The others follow, IPv4 before IPv6.
    pub(super) fn mesh_addresses(&self, given: Option<IpAddr>, peers: &[String]) -> Vec<IpAddr> {
        let routed = || {
            peers
                .iter()
                .map(String::as_str)
                .chain(network::ELSEWHERE)
                .filter_map(|peer| (self.source_towards)(peer).ok())
                .find(|source| mesh_address::check(*source).is_ok())
        };
        let others = self
            .interfaces
            .iter()
            .filter(|(name, _)| network::leads_outside(name))
            .map(|(_, ip)| *ip)
            .filter(|ip| mesh_address::check(*ip).is_ok());
        let mut addresses: Vec<IpAddr> = Vec::new();
        for ip in given.or_else(routed).into_iter().chain(others) {
            if !addresses.contains(&ip) {
                addresses.push(ip);
            }
        }
        addresses
    }
}

/// The first address of `host:port`. The C library waits for a dead name server for 5 s and more; the default route is a
/// good guess long before.
fn resolved(peer: &str) -> io::Result<SocketAddr> {
    if let Ok(address) = peer.parse() {
        return Ok(address);
    }
    let (tell, told) = mpsc::channel();
    let peer = peer.to_owned();
    thread::spawn(move || tell.send(peer.to_socket_addrs().map(|mut found| found.next())));
    let found = told.recv_timeout(RESOLVE_TIMEOUT).map_err(io::Error::other)??;
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(interfaces: &[(&str, &str)], source_towards: fn(&str) -> io::Result<IpAddr>) -> Machine {
        Machine {
            name: "vm.example.org".to_owned(),
            interfaces: interfaces
                .iter()
                .map(|(name, ip)| ((*name).to_owned(), ip.parse().unwrap()))
                .collect(),
            source_towards,
            now: SystemTime::UNIX_EPOCH,
        }
    }

    fn shown(addresses: &[IpAddr]) -> String {
        addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
    }

    fn ip(text: &str) -> io::Result<IpAddr> {
        text.parse().map_err(io::Error::other)
    }

    #[test]
    fn route_decides_which_address_is_first_and_bridges_stay_out() {
        let interfaces = [
            ("lo", "127.0.0.1"),
            ("docker0", "172.17.0.1"),
            ("docker_gwbridge", "172.18.0.1"),
            ("br-7a1", "172.19.0.1"),
            ("lxdbr0", "10.66.0.1"),
            ("incusbr0", "10.67.0.1"),
            ("nerdctl0", "10.4.0.1"),
            ("eth0", "10.0.0.3"),
            ("eth1", "10.1.0.3"),
            ("eth1", "169.254.3.4"),
            ("eth0", "fd00::3"),
            ("eth0", "fe80::1"),
        ];
        let vm = machine(&interfaces, |_| ip("10.1.0.3"));
        assert_eq!(shown(&vm.mesh_addresses(None, &[])), "10.1.0.3,10.0.0.3,fd00::3");
        assert_eq!(vm.short_name(), "vm");
        let outside = ip("34.1.2.3").ok();
        assert_eq!(
            shown(&vm.mesh_addresses(outside, &[])),
            "34.1.2.3,10.0.0.3,10.1.0.3,fd00::3"
        );
    }

    #[test]
    fn route_that_says_nothing_leaves_the_default_route_then_the_first_interface() {
        let interfaces = [("eth0", "10.0.0.3"), ("eth1", "10.1.0.3")];
        let peers = ["istiod.local:15012".to_owned()];
        let local = machine(&interfaces, |peer| {
            ip(if peer == network::ELSEWHERE[0] {
                "10.1.0.3"
            } else {
                "127.0.0.1"
            })
        });
        assert_eq!(shown(&local.mesh_addresses(None, &peers)), "10.1.0.3,10.0.0.3");
        let unrouted = machine(&interfaces, |_| Err(io::ErrorKind::NetworkUnreachable.into()));
        assert_eq!(shown(&unrouted.mesh_addresses(None, &peers)), "10.0.0.3,10.1.0.3");
        assert_eq!(shown(&machine(&[], |_| ip("::1")).mesh_addresses(None, &peers)), "");
    }

    #[test]
    fn kernel_tells_the_source_of_a_route() {
        let source_towards = Machine::observe().source_towards;
        assert_eq!(source_towards("127.0.0.1:9").unwrap(), ip("127.0.0.1").unwrap());
        assert!(source_towards("no port").is_err());
    }
}
