//! Properties of rules, those that are there and those that are to be, whatever the texts.

use super::firewall::ahead::{self, Captured};
use super::firewall::behind;
use super::firewall::{self, Hook, Target, Way};
use super::inbound::Inbound;
use super::membership::ruleset;
use super::sshd;
use super::surroundings::Surroundings;
use super::{Carrier, Directions, Options, Ruleset};
use crate::config::{Backend, Config};
use crate::facts::outbound;
use crate::fuzz::{MEMBERSHIP, is_kept};
use crate::host::fuzz::machine;
use crate::host::{Host, System};

pub(crate) use super::iptables::fuzz::save as iptables_save;
pub(crate) use super::nftables::fuzz::list as nft_list;

/// Plans of the backends, whatever their programs print.
pub(crate) fn answers(host: &Host) {
    let none = Ruleset::default();
    for carrier in Carrier::ALL {
        let _ = carrier.plan(host, &none);
    }
}

/// Reads a text as the record of the ports that are closed at the next boot.
pub(crate) fn inbound_record(text: &str) {
    is_kept::<Inbound>(text);
    if let Ok(inbound) = serde_json::from_str::<Inbound>(text) {
        written(&inbound.ruleset(&options(), &surroundings()));
    }
}

/// nft's listing of all rules and, behind a NUL, the output of iptables-save: what keeps our ports closed, and what takes
/// packets before our rules do.
pub(crate) fn foreign_rules(input: &str) {
    let (listing, saved) = input.split_once('\0').unwrap_or((input, ""));
    let wanted = [15006, 15021, 3550];
    for hook in [
        Hook::Input,
        Hook::Output,
        Hook::LoopbackInput,
        Hook::LoopbackOutput,
        Hook::Envoy,
        Hook::Agent,
    ] {
        let (way, targets) = (Way::of(hook), wanted.map(Target::redirected));
        if let Some(closed) = firewall::fuzz::closed(listing, saved, way, &targets) {
            assert!(!closed.ports.is_empty() && closed.ports.iter().all(|port| wanted.contains(port)));
            assert!(
                !closed.remedies.is_empty(),
                "whoever is told of a port is told how to open it"
            );
        }
    }
    for backend in [Backend::Nftables, Backend::Iptables] {
        let captured = Captured {
            membership: &MEMBERSHIP,
            backend,
        };
        let listed = ahead::rewriting(&machine(listing), captured).unwrap_or_default();
        assert!(listed.iter().all(|it| it.fix.starts_with("nft delete rule ")));
        let raw = ahead::in_raw("iptables-legacy", saved, captured);
        assert!(raw.iter().all(|it| it.fix.starts_with("iptables-legacy -t raw -D ")));
        let nat = behind::in_nat("iptables-legacy", saved, captured);
        assert!(nat.iter().all(|it| it.fix.starts_with("iptables-legacy -t nat -D ")));
        let listed = behind::rewriting(&machine(listing), captured).unwrap_or_default();
        assert!(listed.iter().all(|it| it.fix.starts_with("nft delete rule ")));
    }
}

/// sshd_config.
pub(crate) fn sshd_config(text: &str) {
    assert!(sshd::ports_in(text).count() <= text.lines().count());
}

/// Reads a text as cluster.env's settings of redirection, lines of `KEY=value`.
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
    written(&ruleset(&membership, &options(), &surroundings(), Directions::BOTH));
}

fn options() -> Options {
    let config = Config::parse("c.toml".as_ref(), "join.directory.path = '/b'").expect("a configuration");
    Options::new(Host::new("/nonexistent", System), &config)
}

fn surroundings() -> Surroundings {
    Surroundings {
        ssh_ports: Vec::new(),
        dns_servers: Vec::new(),
        ephemeral_ports: super::capture::EPHEMERAL_PORTS,
        container_dns_servers: Vec::new(),
        bridges: Vec::new(),
    }
}

fn written(ruleset: &Ruleset) {
    super::iptables::fuzz::written(ruleset);
    super::nftables::fuzz::written(ruleset);
}
