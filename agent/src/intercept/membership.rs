//! The traffic that this VM captures, from its membership. Pure.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::capture::{Capture, METADATA_SERVERS, Select};
use super::surroundings::Surroundings;
use super::{Directions, Options, Ruleset};
use crate::config::ports;
use crate::facts::Membership;

/// Ports of the agent and of Envoy that inbound `*` leaves alone, whatever cluster.env says.
const OWN_PORTS: [u16; 3] = [ports::STATUS, ports::READINESS, ports::ENVOY_METRICS];

/// The rules for these directions.
pub(super) fn ruleset(
    membership: &Membership,
    options: &Options,
    surroundings: &Surroundings,
    directions: Directions,
) -> Ruleset {
    let proxy = &membership.proxy_config;
    let mut exclude: Vec<IpNet> = METADATA_SERVERS.into_iter().map(IpNet::from).collect();
    exclude.extend(&membership.outbound.exclude_networks);
    exclude.extend(unserved(membership));
    let capture = Capture {
        proxy_port: proxy.port("proxyListenPort").unwrap_or(ports::OUTBOUND),
        inbound_capture_port: proxy.port("proxyInboundListenPort").unwrap_or(ports::INBOUND),
        inbound_ports_include: match &membership.inbound_ports {
            _ if !directions.inbound => Select::Only(Vec::new()),
            None => Select::All,
            Some(ports) => Select::Only(ports.clone()),
        },
        inbound_ports_exclude: left_alone(
            membership.inbound_ports.as_deref(),
            excluded_ports(membership),
            surroundings,
        ),
        outbound: directions.outbound,
        outbound_ip_ranges_include: match &membership.outbound.networks {
            None => Select::All,
            Some(networks) => Select::Only(networks.clone()),
        },
        outbound_ip_ranges_exclude: exclude,
        outbound_ports_include: membership.outbound.ports.clone(),
        outbound_ports_exclude: membership.outbound.exclude_ports.clone(),
        owner_groups_include: match &membership.outbound.groups {
            None => Select::All,
            Some(groups) => Select::Only(groups.clone()),
        },
        owner_groups_exclude: membership.outbound.exclude_groups.clone(),
        exclude_interfaces: membership.exclude_interfaces.clone(),
        dns_servers: if membership.dns_capture && directions.outbound {
            surroundings.dns_servers.clone()
        } else {
            Vec::new()
        },
        bridge: options.bridge.clone(),
        direct_uids: options.config.direct_uids.clone(),
        bridge_networks: surroundings.bridge_networks.clone(),
        ephemeral_ports: surroundings.ephemeral_ports.clone(),
        ..Capture::default()
    };
    capture.rules()
}

/// The addresses of a family that Envoy has no listeners for: redirected, calls to them would be refused, whoever is
/// called. They leave as they are, as they do with Istio; the mesh's own names have no such addresses. Calls to this
/// VM over it are redirected all the same, and refused: the mesh's policy is not to be passed by.
fn unserved(membership: &Membership) -> Option<IpNet> {
    match membership.families() {
        (true, true) => None,
        (_, false) => Some(Ipv6Net::default().into()),
        (false, true) => Some(Ipv4Net::default().into()),
    }
}

/// The ports that no call is captured on: `excluded`, and where no port is named (`included` is absent) sshd's.
pub(super) fn left_alone(included: Option<&[u16]>, mut excluded: Vec<u16>, surroundings: &Surroundings) -> Vec<u16> {
    if included.is_none() {
        excluded.extend(
            surroundings
                .ssh_ports
                .iter()
                .filter(|port| !excluded.contains(port))
                .collect::<Vec<_>>(),
        );
    }
    excluded
}

pub(super) fn excluded_ports(membership: &Membership) -> Vec<u16> {
    let mut ports = membership.exclude_ports.clone();
    ports.extend(OWN_PORTS);
    let mut seen = BTreeSet::new();
    ports.retain(|port| seen.insert(*port));
    ports
}
