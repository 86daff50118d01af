//! The network as the kernel has it at this moment: interfaces and routes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

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
