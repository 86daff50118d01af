//! `dns-standby`: answers DNS while the agent doesn't. Without rights, configuration or state of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Outcome, block_on, take_proxy_group};
use crate::bounds::Refusals;
use crate::config::{LogConfig, PathsConfig};
use crate::host::Host;
use crate::supervise::Supervisor;
use crate::{dns, telemetry};

/// Runs until a signal ends the process: there is nothing to put back.
pub(super) fn run(run: &Path) -> Result<Outcome> {
    let refusals = Refusals::default();
    telemetry::install(&LogConfig::default(), refusals.clone())?;
    // Its own queries to the VM's servers are not to come back to it.
    take_proxy_group()?;
    let paths = PathsConfig {
        run: run.to_owned(),
        ..PathsConfig::default()
    };
    let options = dns::Options::new(Host::system(), refusals);
    block_on(async {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("dns standby", Duration::ZERO, |scope| {
            dns::stand_by(scope, options, paths.dns_socket(), paths.names())
        });
        Err(supervisor.failed().await)
    })
}
