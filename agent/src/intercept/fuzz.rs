//! Properties of rules, those that are there and those that are to be, whatever the texts.

use super::membership::ruleset;
use super::surroundings::Surroundings;
use super::{Carrier, Directions, Options, Ruleset};
use crate::config::Config;
use crate::facts::outbound;
use crate::fuzz::MEMBERSHIP;
use crate::host::{Host, System};

pub(crate) use super::iptables::fuzz::save as iptables_save;
pub(crate) use super::nftables::fuzz::list as nft_list;

/// What the backends make of what their programs print.
pub(crate) fn answers(host: &Host) {
    let none = Ruleset::default();
    for carrier in Carrier::ALL {
        let _ = carrier.plan(host, &none);
    }
}

/// What cluster.env says of redirection, as lines of `KEY=value`.
pub(crate) fn rules(text: &str) {
    let mut membership = MEMBERSHIP.clone();
    for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let networks = outbound::networks(value).unwrap_or_default();
        match key {
            "ISTIO_SERVICE_CIDR" => membership.outbound.networks = Some(networks),
            "ISTIO_SERVICE_EXCLUDE_CIDR" => membership.outbound.exclude_networks = networks,
            "ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE" => {
                membership.outbound.exclude_ports = value.split(',').filter_map(|port| port.parse().ok()).collect();
            }
            _ => drop(membership.env.insert(key.to_owned(), value.to_owned())),
        }
    }
    let config = Config::parse("c.toml".as_ref(), "join.directory.path = '/b'").expect("a configuration");
    let options = Options::new(Host::new("/nonexistent", System), &config);
    let surroundings = Surroundings {
        ssh_ports: Vec::new(),
        dns_servers: Vec::new(),
        ephemeral_ports: super::capture::EPHEMERAL_PORTS,
        container_dns_servers: Vec::new(),
        bridges: Vec::new(),
    };
    let ruleset = ruleset(&membership, &options, &surroundings, Directions::BOTH);
    super::iptables::fuzz::written(&ruleset);
    super::nftables::fuzz::written(&ruleset);
}
