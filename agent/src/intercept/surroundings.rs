//! What the rules need to know of this machine: its resolvers, and where its own connections come from.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::Path;

use anyhow::{Context, Result};
use ipnet::IpNet;

use super::capture::{Bridge, EPHEMERAL_PORTS};
use super::rules::network;
use crate::host::{Host, Read};

const MAX_BYTES: usize = 64 << 10;
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// Two numbers, first and last, of both families.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Surroundings {
    pub(super) dns_servers: Vec<IpAddr>,
    pub(super) ephemeral_ports: RangeInclusive<u16>,
    /// Networks on the container's bridge; none while there is no such bridge.
    pub(super) bridge_networks: Vec<IpNet>,
}

impl Surroundings {
    pub(super) fn of(host: &Host, bridge: Option<&Bridge>) -> Result<Self> {
        let resolv_conf = host
            .read(Path::new(RESOLV_CONF), Read::max(MAX_BYTES).following_links())
            .context("failed to read the resolvers")?;
        let range = host
            .read(Path::new(PORT_RANGE), Read::max(MAX_BYTES).following_links())
            .context("failed to read the ports of this VM's own connections")?;
        Ok(Self {
            dns_servers: nameservers(&resolv_conf.unwrap_or_default()),
            ephemeral_ports: range.as_deref().and_then(port_range).unwrap_or(EPHEMERAL_PORTS),
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

fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// More than any resolver library asks; a longer list is not one that a person made.
const MOST: usize = 16;

/// The `nameserver`s of a resolv.conf, each once, in order; a line that names none is passed over, as the C
/// library does.
pub(super) fn nameservers(text: &str) -> Vec<IpAddr> {
    let mut servers = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if words.next() != Some("nameserver") {
            continue;
        }
        // Without the interface of a link-local address, which a destination on the wire doesn't have.
        let address = words.next().and_then(|word| word.split('%').next()?.parse().ok());
        if let Some(address) = address
            && !servers.contains(&address)
            && servers.len() < MOST
        {
            servers.push(address);
        }
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_once_and_nothing_else() {
        let text = "# nameserver 1.1.1.1\nsearch a b\nnameserver 169.254.169.254\n  nameserver\tfe80::1%eth0 # x\n\
                    nameserver 169.254.169.254\nnameserver nonsense\nnameserver\n";
        let expected: Vec<IpAddr> = vec!["169.254.169.254".parse().unwrap(), "fe80::1".parse().unwrap()];
        assert_eq!(nameservers(text), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read(text in "(nameserver |\n|\\PC){0,60}") {
            assert!(nameservers(&text).len() <= MOST);
        }
    }
}
