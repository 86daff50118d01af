//! `revert`: the host as it was, found by our marks, whatever became of the agent that left them.

use std::path::Path;

use anyhow::{Result, bail};

use super::configuration::Places;
use super::{Verdict, say};
use crate::config::{DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT, PathsConfig};
use crate::host::Host;
use crate::host::change::revert_all;
use crate::{envoy, hosts, intercept, workload};

/// In the order of a stop: the application, then the rules, so that nothing reaches it past Envoy; then
/// Envoy, then /etc/hosts. Each part is tried, whatever becomes of the others.
/// `hosts_unit` writes /etc/hosts where this process may not.
pub(super) fn run(path: &Path, hosts_unit: Option<&str>) -> Result<Verdict> {
    revert(&Host::system(), path, hosts_unit)?;
    say("This host is as it was before istio-vm-agent.\n")
}

pub(super) fn revert(host: &Host, path: &Path, hosts_unit: Option<&str>) -> Result<()> {
    // A configuration that can't be read any more must not keep a host from being put back.
    let config = Places::new(path, host)
        .and_then(|places| places.at_hand())
        .ok()
        .flatten();
    let paths = config.as_ref().map(|config| config.paths.clone()).unwrap_or_default();
    let (socket, grace) = config.and_then(|config| config.workload.container).map_or_else(
        || (DEFAULT_SOCKET.to_owned(), DEFAULT_STOP_TIMEOUT),
        |it| (it.docker_socket, it.stop_timeout),
    );
    let _lock = if host.real_path(&paths.run).exists() {
        Some(host.lock(&paths.lock()).map_err(|error| {
            anyhow::anyhow!("{error}: stop it first, with `systemctl stop istio-vm-agent` or SIGTERM")
        })?)
    } else {
        None
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut failures = Vec::new();
    let mut note = |part: &str, done: Result<()>| {
        if let Err(error) = done {
            failures.push(format!("{part}: {error:#}"));
        }
    };
    note("container", runtime.block_on(workload::remove(&socket, grace)));
    note("interception", revert_all(host, &intercept::marks()));
    note(
        "Envoy",
        runtime.block_on(envoy::stop_recorded(host, &paths)).map(|_| ()),
    );
    let writer = hosts::Writer::new(hosts_unit, &paths);
    note("hosts", hosts::marks(&writer).revert(host));
    note("run directory", remove_sockets(host, &paths));
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
