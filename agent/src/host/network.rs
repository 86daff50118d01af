//! The network as the kernel has it at this moment: interfaces and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use if_addrs::IfAddr;

use crate::facts::HostState;

/// Bridges to containers and virtual machines: their addresses lead nowhere from another host, and are often
/// the same on all of them.
const INNER_BRIDGES: [&str; 10] = [
    "docker", "br-", "veth", "virbr", "cni", "lxc", "lxdbr", "incusbr", "nerdctl", "podman",
];

/// Documentation addresses (RFC 5737, RFC 3849), which only a default route leads to.
pub(crate) const ELSEWHERE: [&str; 2] = ["192.0.2.1:9", "[2001:db8::1]:9"];

/// Interfaces that are up, each with one address: IPv4 first, then in the kernel's order.
///
/// # Errors
/// When the kernel doesn't tell.
pub(crate) fn interfaces() -> io::Result<Vec<(String, IpAddr)>> {
    let mut interfaces = if_addrs::get_if_addrs()?;
    interfaces.retain(|interface| interface.is_oper_up());
    interfaces.sort_by_key(|interface| (interface.ip().is_ipv6(), interface.index));
    Ok(interfaces
        .into_iter()
        .map(|interface| (interface.name.clone(), interface.ip()))
        .collect())
}

/// True for an address of an interface that has no network with it: of a tunnel, or a /32.
pub(crate) fn is_single(address: IpAddr) -> bool {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let mut of_it = all.iter().filter(|it| it.ip() == address);
    of_it.any(|it| match &it.addr {
        _ if it.is_p2p() => true,
        IfAddr::V4(v4) => v4.prefixlen >= 31,
        IfAddr::V6(v6) => v6.prefixlen >= 127,
    })
}

/// True unless the interface is a bridge to containers or virtual machines, or one of their ends.
pub(crate) fn leads_outside(interface: &str) -> bool {
    !INNER_BRIDGES.iter().any(|bridge| interface.starts_with(bridge))
}

/// True when there is a default route, of either family.
pub(crate) fn has_default_route() -> bool {
    let mut elsewhere = ELSEWHERE.iter().filter_map(|address| address.parse().ok());
    elsewhere.any(|address| source_towards(address).is_ok())
}

/// True for an address that packets arrive at here: of an interface, or one that a route makes this machine's, as a load
/// balancer's is.
pub(crate) fn is_own(address: IpAddr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// Addresses and routes by which the machine reaches others; a bridge of containers that comes, or a clock that is
/// set, changes nothing of it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Reach {
    interfaces: Vec<(String, IpAddr)>,
    has_default_route: bool,
    /// A machine that slept has lost its connections.
    resumes: u64,
}

impl Reach {
    pub(crate) fn of(state: &HostState) -> Self {
        let outside = state.interfaces.iter().filter(|(name, _)| leads_outside(name));
        Self {
            interfaces: outside.cloned().collect(),
            has_default_route: state.has_default_route,
            resumes: state.resumes,
        }
    }

    /// Takes the machine as it is now; tells whether it reaches others in another way.
    pub(crate) fn differs(&mut self, state: &HostState) -> bool {
        let now = Self::of(state);
        let differs = *self != now;
        *self = now;
        differs
    }
}

/// The source address that packets to `peer` leave with: connecting a UDP socket has the kernel choose it, and sends
/// nothing.
///
/// # Errors
/// When no route leads there.
pub(crate) fn source_towards(peer: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = match peer.is_ipv4() {
        true => Ipv4Addr::UNSPECIFIED.into(),
        false => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(peer)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_reached_in_another_way_after_a_change_outside_and_after_no_other() {
        let up = |name: &str, ip: &str| (name.to_owned(), ip.parse().unwrap());
        let mut state = HostState {
            interfaces: vec![up("eth0", "10.0.0.3")],
            ..HostState::default()
        };
        let mut reach = Reach::of(&state);
        state.interfaces.push(up("docker0", "172.17.0.1"));
        state.clock_steps += 1;
        assert!(!reach.differs(&state));
        let changes: [fn(&mut HostState); 3] = [
            |state| state.interfaces[0].1 = "10.0.0.4".parse().unwrap(),
            |state| state.has_default_route = true,
            |state| state.resumes += 1,
        ];
        for change in changes {
            change(&mut state);
            assert!(reach.differs(&state) && !reach.differs(&state), "{state:?}");
        }
    }
}
