//! Envoy without an agent: what `status`, `plan` and `revert` look at and do.

use anyhow::{Context, Result};
use similar::TextDiff;

use super::options::Options;
use super::process::{EnvoyProcess, LaunchSpec, PidRecord, ledger};
use super::source::{Located, locate};
use crate::config::PathsConfig;
use crate::facts::Membership;
use crate::host::Host;

/// The pid of the newest Envoy of this run directory that is alive; asks nothing of Envoy and never waits.
pub fn running(host: &Host, paths: &PathsConfig) -> Option<u32> {
    Some(ledger::newest(host, paths)?.pid)
}

/// Shows as a diff how a start of the agent would change the bootstrap and the running Envoy; `None` when it would not.
/// Changes nothing.
pub fn plan(options: &Options, membership: &Membership) -> Result<Option<String>> {
    let Options { host, paths, .. } = options;
    let located = locate(options);
    let spec = LaunchSpec::new(options, located.path(), membership);
    let running = ledger::newest(host, paths);
    let change = match &running {
        None => format!("+ start {}\n", spec.command_line.join(" ")),
        Some(record) => match record.differs_from(&spec) {
            None => return Ok(None),
            Some(why) => format!("~ replace Envoy, pid {}: {why}\n", record.pid),
        },
    };
    let change = match &located {
        Located::Here(_) => change,
        Located::ToFetch(path) => format!("+ fetch {} to {}\n{change}", options.config.source(), path.display()),
    };
    let there = running.as_ref().and_then(PidRecord::bootstrap).unwrap_or_default();
    let name = paths.bootstrap().display().to_string();
    let diff = TextDiff::from_lines(there, &spec.bootstrap)
        .unified_diff()
        .header(&name, &name)
        .to_string();
    Ok(Some(change + &diff))
}

/// Ends the Envoys of this run directory without an agent, and removes their files. Returns the pid of the newest one.
pub async fn stop_recorded(host: &Host, paths: &PathsConfig) -> Result<Option<u32>> {
    ledger::recover(host, paths, None).await?;
    let found = EnvoyProcess::all(host, paths);
    for envoy in &found {
        tracing::info!(pid = envoy.pid(), "stopping Envoy");
    }
    EnvoyProcess::end_all(&found).await?;
    for file in [paths.envoy_record(), paths.envoy_command(), paths.bootstrap()] {
        host.remove(&file).context("failed to remove Envoy's files")?;
    }
    for directory in [paths.envoy(), paths.endpoints()] {
        host.remove_directory(&directory)
            .context("failed to remove Envoy's files")?;
    }
    Ok(found.first().map(EnvoyProcess::pid))
}
