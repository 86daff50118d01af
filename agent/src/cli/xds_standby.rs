//! `xds-standby`: holds the VM's place in the mesh while the agent doesn't. Without rights, configuration or state of its own.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::{Outcome, block_on, take_proxy_group};
use crate::bounds::Refusals;
use crate::config::{LogConfig, PathsConfig};
use crate::host::Host;
use crate::supervise::Supervisor;
use crate::{identity, telemetry, xds};

/// Runs until a signal ends the process: there is nothing to put back.
pub(super) fn run(run: &Path, state: &Path) -> Result<Outcome> {
    telemetry::install(&LogConfig::default(), Refusals::default())?;
    // Its stream to istiod is not to go through Envoy.
    take_proxy_group()?;
    let paths = PathsConfig {
        run: run.to_owned(),
        state: state.to_owned(),
    };
    let identity = paths.identity();
    let credentials = move |host: &Host| identity::stored(host, &identity);
    block_on(async {
        let mut supervisor = Supervisor::default();
        supervisor.spawn("xds standby", Duration::ZERO, |scope| {
            xds::stand_by(scope, Host::system(), paths, credentials)
        });
        Err(supervisor.failed().await)
    })
}
