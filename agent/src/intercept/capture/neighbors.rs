//! Other containers on the container's bridge.
//!
//! A bridge passes their frames on by itself, and netfilter's IP tables see none of them, or, with br_netfilter, see them
//! before they are passed on. Nothing of it leaves this VM, so none of it is redirected to Envoy, which would speak for
//! them with this VM's identity; and none of it reaches the container's ports, for their callers come by Envoy, which is on
//! this VM and on no port of the bridge.
//!
//! Which bridge a frame is on the kernel tells only where it has `nft_meta_bridge`, so networks say it: those that the
//! bridge has addresses in, and such as every bridge has. So no container may give another one an address in any other
//! network, as one that plays the router would. Nor may one say that it is this VM: the application's calls would go to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::closed::chunks;
use super::{Capture, for_address, rule};

use ipnet::IpNet;

use crate::intercept::Ruleset;
use crate::intercept::rules::{Chain, Match, Table, Verdict, network};

/// Name of a bridge's port that a container is at, as dockerd gives it (libnetwork, drivers/bridge, vethPrefix).
const CONTAINERS: &str = "veth*";
/// Prefix lengths of link-local addresses (RFC 4291, section 2.5.6) and of groups (RFC 4291, section 2.7; RFC 5771). What
/// comes from no address and goes to none is broadcast, too (RFC 1122, section 3.2.1.3).
const LINK_LOCAL: (Ipv6Addr, u8) = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10);
const GROUPS: [(IpAddr, u8); 4] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 32),
    (IpAddr::V4(Ipv4Addr::BROADCAST), 32),
    (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4),
    (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8),
];

impl Capture {
    /// Packets of one container to another, on its own bridge or on another one, are Docker's to pass on or to drop:
    /// Envoy would call it as this VM, which may. What is sent to this VM goes to Envoy.
    pub(super) fn to_neighbors(&self, rules: &mut Ruleset, table: Table) {
        for network in with_link_local(&self.bridges.networks) {
            let mut matches = vec![Match::Dest(network), Match::Tcp];
            matches.extend((table == Table::Nat).then_some(Match::NotToSelf));
            let rule = rule(table, Chain::IstioContainer, matches, Verdict::Return);
            rules.push(for_address(&network.addr(), rule));
        }
    }

    /// Rules for packets that are bridged to the ports of the container. Another container may have the same port, and
    /// is closed to its neighbors with it: one that is just being started has no address yet by which to tell it.
    pub(super) fn bridged(&self, rules: &mut Ruleset) {
        let Some(bridge) = self.bridges.application.as_ref().filter(|_| self.captures_inbound()) else {
            return;
        };
        let hosts = with_link_local(&self.bridges.application_networks);
        if hosts.is_empty() {
            return;
        }
        let port = || CONTAINERS.to_owned();
        // Before the bridge learns from a frame, and whoever it is for.
        let mut refuse = |matches| rules.push(rule(Table::Bridge, Chain::Prerouting, matches, Verdict::Drop));
        refuse(vec![Match::NestedTag]);
        for gateway in &self.bridges.application_gateways {
            refuse(vec![Match::In(port()), Match::Claim(*gateway)]);
            refuse(vec![Match::In(port()), Match::Source((*gateway).into())]);
        }
        let mut drop = |matches| rules.push(rule(Table::Bridge, Chain::Forward, matches, Verdict::Drop));
        drop(vec![Match::In(port()), Match::Out(port()), Match::RouterAdvertisement]);
        let groups = GROUPS.map(|(ip, prefix)| network(ip, prefix));
        // The bridge passes fragments on one by one, and the container puts them together.
        for network in hosts.iter().chain(&groups).filter(|network| network.addr().is_ipv6()) {
            drop(vec![Match::Dest(*network), Match::HiddenTransport]);
        }
        for ports in chunks(&bridge.container_ports()) {
            for (transport, networks) in [
                (Match::Tcp, hosts.clone()),
                (Match::Udp, hosts.iter().copied().chain(groups).collect::<Vec<_>>()),
            ] {
                for network in networks {
                    drop(vec![
                        Match::Dest(network),
                        transport.clone(),
                        Match::DestPorts(ports.clone()),
                    ]);
                }
            }
        }
    }
}

/// Addresses of those on bridges with these networks, this VM's among them; none while there is no bridge.
fn with_link_local(networks: &[IpNet]) -> Vec<IpNet> {
    let (link_local, prefix) = LINK_LOCAL;
    let link_local = (!networks.is_empty()).then(|| network(link_local.into(), prefix));
    networks.iter().copied().chain(link_local).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_to_every_kind_of_group_are_dropped_on_the_bridge() {
        let capture = Capture::of_a_container();
        let rules = capture.rules().rules;
        for group in [
            "0.0.0.0/32",
            "255.255.255.255/32",
            "224.0.0.0/4",
            "ff00::/8",
            "172.17.0.0/16",
        ] {
            let wanted = vec![
                Match::Dest(group.parse().unwrap()),
                Match::Udp,
                Match::DestPorts(vec![8080]),
            ];
            assert!(
                rules.contains(&rule(Table::Bridge, Chain::Forward, wanted, Verdict::Drop)),
                "{group}"
            );
        }
    }
}
