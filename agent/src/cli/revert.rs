//! `revert`: the host as it was, found by our marks, whatever became of the agent that left them.

use std::path::Path;

use anyhow::{Result, bail};

use super::configuration::ConfigSource;
use super::{Outcome, print};
use crate::app::parts;
use crate::config::PathsConfig;
use crate::host::Host;
use crate::part::{Site, Units};

/// In the order of a stop: the application, then the rules, so that nothing reaches it past Envoy; then Envoy, then
/// /etc/hosts. Each part is tried, whatever becomes of the others.
/// `hosts_unit` writes /etc/hosts where this process may not.
pub(super) async fn run(path: &Path, hosts_unit: Option<&str>) -> Result<Outcome> {
    revert(&Host::system(), path, hosts_unit).await?;
    print("This host is as it was before istio-vm-agent.\n")
}

pub(super) async fn revert(host: &Host, path: &Path, hosts_unit: Option<&str>) -> Result<()> {
    // A configuration that can't be read any more must not keep a host from being put back.
    let config = ConfigSource::new(path, host).and_then(|source| source.at_hand());
    let site = Site {
        host: host.clone(),
        config: config.ok().flatten().unwrap_or_default(),
        units: Units {
            hosts: hosts_unit.map(str::to_owned),
            ..Units::default()
        },
    };
    let paths = &site.config.paths;
    let _lock = if host.exists(&paths.run) {
        Some(host.lock(&paths.lock()).map_err(|error| {
            anyhow::anyhow!("{error}: stop it first, with `systemctl stop istio-vm-agent` or SIGTERM")
        })?)
    } else {
        None
    };
    let mut failures = Vec::new();
    for part in parts(None).iter().rev() {
        if let Err(error) = part.revert(&site).await {
            failures.push(format!("{}: {error:#}", part.name()));
        }
    }
    if let Err(error) = remove_sockets(host, paths) {
        failures.push(format!("run directory: {error:#}"));
    }
    if !failures.is_empty() {
        bail!("failed to revert {}", failures.join("; "));
    }
    Ok(())
}

fn remove_sockets(host: &Host, paths: &PathsConfig) -> Result<()> {
    for socket in [paths.xds_socket(), paths.sds_socket(), paths.status_socket()] {
        host.remove(&socket)?;
    }
    Ok(())
}
