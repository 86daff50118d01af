//! Starts an Envoy, as a unit or as a process of the agent's, and records it.

use anyhow::{Context, Result};

use super::launch::{Binary, Launch};
use super::output::Output;
use super::record::Record;
use super::{Options, READABLE, spawn, unit};
use crate::config::EnvoySource;
use crate::supervise::Process;

/// Starts what `launch` says, beside `before`, from which it takes over.
pub(super) async fn start(options: &Options, launch: &Launch, before: Option<u32>, output: &Output) -> Result<Process> {
    let Options { host, paths, .. } = options;
    host.write(&paths.bootstrap(), &launch.bootstrap, 0o640, Some(READABLE))
        .context("failed to write Envoy's bootstrap")?;
    let program = launch.program();
    let missing = || {
        let remedy = remedy(&options.config.source());
        format!("failed to start Envoy, {}: {remedy}", program.display())
    };
    let binary = Binary::at(&program).with_context(missing)?;
    let pid = match &options.unit {
        None => spawn::start(launch, output).with_context(missing)?,
        Some(unit) => start_unit(options, unit, before, launch).await.with_context(missing)?,
    };
    let process = Process::open(pid).context("failed to watch Envoy")?;
    // Unrecorded it is found by its command line, so this is no reason to end it.
    if let Err(error) = Record::of(pid, launch, binary).and_then(|record| record.write(host, paths)) {
        tracing::warn!(pid, "{error:#}");
    }
    tracing::info!(pid, "started Envoy");
    Ok(process)
}

async fn start_unit(options: &Options, unit: &str, before: Option<u32>, launch: &Launch) -> Result<u32> {
    let (host, paths) = (options.host.clone(), options.paths.clone());
    let (unit, launch) = (unit.to_owned(), launch.clone());
    tokio::task::spawn_blocking(move || unit::start(&host, &paths, &unit, before, &launch)).await?
}

/// What to do about a program that doesn't start.
fn remedy(source: &EnvoySource) -> &'static str {
    match source {
        EnvoySource::Binary(_) => "check envoy.binary",
        _ => "is it for this kind of machine, and does the file system of paths.state let programs run (no `noexec`)?",
    }
}
