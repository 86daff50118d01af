//! `guard`: on boot, before dockerd publishes a port: the rules for calls to this VM, so that none reaches the
//! application past Envoy until the agent has joined again. Calls from this VM wait for nobody.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::Result;

use super::configuration::{ConfigSource, of_unit};
use super::{Outcome, print};
use crate::config::{Config, FailPolicy};
use crate::host::Host;
use crate::intercept::{self, Options};
use crate::join::Join;

const CLOSED: &str = "Calls to this VM are refused until the agent has joined the mesh.\n";

pub(super) fn run(path: &Path, unit: &str) -> Result<Outcome> {
    let host = Host::system();
    if is_agent_running(&host) {
        return print("An agent runs, and sees to its rules itself.\n");
    }
    let path = of_unit(&host, path, unit);
    let config = match ConfigSource::new(&path, &host).and_then(|source| source.at_hand()) {
        Ok(Some(config)) => config,
        Ok(None) => return print("This VM has never had a configuration: there is nothing to guard yet.\n"),
        Err(error) => return as_before(&Options::by_default(host)).and_then(|done| done.map_or(Err(error), print)),
    };
    if config.intercept.on_envoy_down.inbound == FailPolicy::Open {
        return print(
            "intercept.on_envoy_down.inbound is \"open\": calls are taken past the mesh until Envoy is ready.\n",
        );
    }
    let options = Options::new(host, &config);
    match as_before(&options)? {
        Some(done) => print(done),
        None => print(by_membership(config, &options)?),
    }
}

/// Tells whether there is an agent: a guard that is reloaded with another firewall may come beside one.
fn is_agent_running(host: &Host) -> bool {
    let lock = host.lock_network();
    lock.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

/// Puts in what closed this VM last: it needs no bundle, no address and no network.
fn as_before(options: &Options) -> Result<Option<&'static str>> {
    let Some(change) = intercept::guard_as_before(options)? else {
        return Ok(None);
    };
    change.apply(&options.host)?;
    Ok(Some(CLOSED))
}

/// Puts in the rules of the membership at hand, on a VM whose agent kept nothing for its guard yet.
fn by_membership(mut config: Config, options: &Options) -> Result<&'static str> {
    const NOTHING: &str = "This VM has never been in a mesh: there is nothing to guard yet.\n";
    // Where it never has joined, nobody relies on it yet.
    if options.host.meta(&config.paths.identity())?.is_none() {
        return Ok(NOTHING);
    }
    // There may be no address yet, and none is needed: what arrives is closed for all.
    config.network.address.get_or_insert(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let Some(membership) = Join::open(&config, &options.host)?.at_hand()? else {
        return Ok(NOTHING);
    };
    intercept::guard(&membership, options)?.apply(&options.host)?;
    Ok(CLOSED)
}
