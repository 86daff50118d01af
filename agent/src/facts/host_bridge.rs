//! Bridges of the machine, on which containers are.

use std::net::IpAddr;

use ipnet::IpNet;

/// A bridge, and what this machine is on it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostBridge {
    /// Name of its interface, such as `docker0`.
    pub interface: String,
    /// Addresses of this machine on it, each once and in order; link-local ones of IPv6 come and go, and are left out.
    pub addresses: Vec<IpAddr>,
    /// Networks of the bridges, each once and in order.
    pub networks: Vec<IpNet>,
    /// True where nobody but containers of this machine can be on it.
    pub is_inner: bool,
}

impl HostBridge {
    /// True for an address in a network of a bridge that has nobody but containers on it.
    pub fn has_container(&self, address: IpAddr) -> bool {
        self.is_inner && self.networks.iter().any(|network| network.contains(&address))
    }
}
