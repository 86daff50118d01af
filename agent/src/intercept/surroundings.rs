//! This machine as the rules need to know it: its resolvers, and where its own connections come from.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::capture::{Bridge, EPHEMERAL_PORTS};
use super::rules::network;
use super::sshd;
use crate::host::{Host, Read, ResolvConf};

const MAX_BYTES: usize = 64 << 10;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Two numbers, first and last, of both families.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Surroundings {
    pub(super) dns_servers: Vec<IpAddr>,
    pub(super) ephemeral_ports: RangeInclusive<u16>,
    /// Ports of sshd, whatever it is told to listen on.
    pub(super) ssh_ports: Vec<u16>,
    /// Networks on the container's bridge; none while there is no such bridge.
    pub(super) bridge_networks: Vec<IpNet>,
}

impl Surroundings {
    pub(super) fn of(host: &Host, bridge: Option<&Bridge>) -> Result<Self> {
        let resolv_conf = host
            .resolv_conf(Path::new(RESOLV_CONF))
            .context("failed to read the resolvers")?
            .unwrap_or_default();
        let range = host
            .read(Path::new(PORT_RANGE), Read::max(MAX_BYTES).following_links())
            .context("failed to read the ports of this VM's own connections")?;
        Ok(Self {
            dns_servers: addresses(&resolv_conf),
            ephemeral_ports: range.as_deref().and_then(port_range).unwrap_or(EPHEMERAL_PORTS),
            ssh_ports: sshd::ports(host),
            bridge_networks: match bridge {
                Some(bridge) => networks(host, &bridge.interface)?,
                None => Vec::new(),
            },
        })
    }
}

/// In an order of its own, whatever the kernel's. Link-local ones come and go with the first container.
fn networks(host: &Host, interface: &str) -> Result<Vec<IpNet>> {
    let addresses = host
        .addresses(interface)
        .with_context(|| format!("failed to read the addresses of {interface}"))?;
    let global = addresses
        .into_iter()
        .filter(|(ip, _)| !matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local()));
    let networks: BTreeSet<IpNet> = global.map(|(ip, prefix)| network(ip, prefix)).collect();
    Ok(networks.into_iter().collect())
}

/// The addresses of the servers whose queries can be redirected, each once.
fn addresses(resolv_conf: &ResolvConf) -> Vec<IpAddr> {
    let servers = resolv_conf.servers.iter().filter(|server| server.is_redirectable());
    let mut addresses: Vec<IpAddr> = servers.map(|server| server.address).collect();
    let mut seen = HashSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dns_servers_are_addresses_that_can_be_redirected_each_once() {
        let conf = ResolvConf::parse("nameserver fe80::1%eth0\nnameserver 10.0.0.1\nnameserver fd00::1\n");
        let expected: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()];
        assert_eq!(addresses(&conf), expected);
    }
}
