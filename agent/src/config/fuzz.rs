//! Properties of a configuration, whoever wrote it.

use std::path::Path;

use super::instance::{self, Attributes};
use super::{Config, JoinConfig, LONGEST};

/// The text of config.toml.
pub(crate) fn toml(text: &str) {
    if let Ok(config) = Config::parse(Path::new("config.toml"), text) {
        check(&config);
    }
}

/// Attributes of an instance: names and values by turns.
pub(crate) fn attributes(input: &str) {
    let mut parts = input.split('\0').map(str::to_owned);
    let mut attributes = Attributes::new();
    while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
        attributes.insert(name, value);
    }
    let mut attributes = instance::ours(attributes, Attributes::new());
    instance::complete(&mut attributes, "a-project", "europe-west1-b");
    if let Ok(config) = Config::from_attributes(&attributes) {
        check(&config);
    }
}

fn check(config: &Config) {
    let probe = config
        .health
        .probe
        .iter()
        .flat_map(|probe| [probe.0.initial_delay, probe.0.timeout, probe.0.period]);
    let container = config.workloads.containers();
    let container = container.flat_map(|container| [container.stop_timeout, container.startup_timeout]);
    let service = config.workloads.services().map(|service| service.stop_timeout);
    let poll = match &config.join {
        JoinConfig::Https(https) => Some(https.poll),
        _ => None,
    };
    let all = [
        config.identity.ttl,
        config.control_plane.return_after,
        config.control_plane.propagation,
    ];
    let mut all = all
        .into_iter()
        .chain(config.envoy.drain)
        .chain(poll)
        .chain(probe)
        .chain(container)
        .chain(service);
    assert!(all.all(|one| one <= LONGEST), "durations can be added up");
}
