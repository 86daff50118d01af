//! The traffic that this VM captures, from its membership. Pure.

use std::collections::BTreeSet;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::capture::{Bridges, Capture, METADATA_SERVERS, Select};
use super::surroundings::Surroundings;
use super::{Bridge, Directions, Options, Ruleset};
use crate::config::ports;
use crate::facts::{HostBridge, Membership};

/// Ports of the agent and of Envoy that inbound `*` leaves alone, whatever cluster.env says.
const OWN_PORTS: [u16; 3] = [ports::STATUS, ports::READINESS, ports::ENVOY_METRICS];

/// The rules for these directions.
pub(super) fn ruleset(
    membership: &Membership,
    options: &Options,
    surroundings: &Surroundings,
    directions: Directions,
) -> Ruleset {
    let (proxy_port, inbound_capture_port) = envoy_ports(membership);
    let mut exclude: Vec<IpNet> = METADATA_SERVERS.into_iter().map(IpNet::from).collect();
    exclude.extend(&membership.outbound.exclude_networks);
    exclude.extend(unserved(membership));
    let capture = Capture {
        proxy_port,
        inbound_capture_port,
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
        container_dns_servers: surroundings.container_dns_servers.clone(),
        direct_uids: options.config.direct_uids.clone(),
        ephemeral_ports: surroundings.ephemeral_ports.clone(),
        bridges: bridges(options, surroundings, &membership.exclude_interfaces),
        ..Capture::default()
    };
    capture.rules()
}

/// The ports of Envoy that calls are redirected to: out, and in. Istio's, unless the mesh has others.
pub(crate) fn envoy_ports(membership: &Membership) -> (u16, u16) {
    let port = |field, istios| membership.proxy_config.port(field).unwrap_or(istios);
    (
        port("proxyListenPort", ports::OUTBOUND),
        port("proxyInboundListenPort", ports::INBOUND),
    )
}

/// The bridges to containers: the application's, which may come later, and every other one of this VM.
pub(super) fn bridges(options: &Options, surroundings: &Surroundings, excluded: &[String]) -> Bridges {
    let application = options.bridge.as_ref();
    let is_applications = |interface: &str| application.is_some_and(|bridge| bridge.interface == interface);
    let inner = || {
        let all = surroundings.bridges.iter();
        all.filter(|bridge| bridge.is_inner || is_applications(&bridge.interface))
    };
    let is_excluded = |bridge: &HostBridge| {
        excluded.contains(&bridge.interface) || options.config.excludes_containers_of(&bridge.networks)
    };
    let captured = inner().filter(|bridge| !is_excluded(bridge));
    let mut captured: Vec<String> = captured.map(|bridge| bridge.interface.clone()).collect();
    if let Some(Bridge { interface, .. }) = application
        && !inner().any(|bridge| bridge.interface == *interface)
        && !excluded.contains(interface)
    {
        captured.push(interface.clone());
    }
    captured.sort_unstable();
    let networks = |meant: &dyn Fn(&str) -> bool| -> Vec<IpNet> {
        let meant = inner().filter(|bridge| meant(&bridge.interface));
        meant.flat_map(|bridge| bridge.networks.clone()).collect()
    };
    Bridges {
        application: application.cloned(),
        application_networks: networks(&is_applications),
        application_gateways: inner()
            .filter(|bridge| is_applications(&bridge.interface))
            .flat_map(|bridge| bridge.addresses.clone())
            .collect(),
        captured,
        networks: networks(&|_| true),
    }
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
