//! The machine below the VM's membership: its network and its clock.

use std::net::IpAddr;

use super::HostBridge;

/// The state of the machine that the agent follows. Published by `host_events`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HostState {
    /// Interfaces that are up, each with one address; empty before the first look.
    pub interfaces: Vec<(String, IpAddr)>,
    /// Bridges, those to containers among them.
    pub bridges: Vec<HostBridge>,
    /// True when there is a default route, IPv4 or IPv6.
    pub has_default_route: bool,
    /// Times that the wall clock was set since the agent's start.
    pub clock_steps: u64,
    /// Times that the machine woke from a suspension since the agent's start.
    pub resumes: u64,
}

impl HostState {
    /// True unless it is known that no interface which is up has this address.
    pub fn may_have(&self, address: IpAddr) -> bool {
        self.interfaces.is_empty() || address.is_loopback() || self.interfaces.iter().any(|(_, ip)| *ip == address)
    }
}
