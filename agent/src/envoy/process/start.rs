//! Starts an Envoy, as a unit or as a process of the agent's, and records it.

use anyhow::{Context, Result};

use super::binary::Binary;
use super::launch_spec::Launch;
use super::log_pipes::Output;
use super::record::{Intent, Record};
use super::{ledger, spawn, unit};
use crate::config::EnvoySource;
use crate::envoy::options::{Options, READABLE};
use crate::supervise::Process;

/// Starts what `launch` says, beside `before`, from which it takes over.
pub(in crate::envoy) async fn start(
    options: &Options,
    launch: &Launch,
    before: Option<u32>,
    output: &Output,
) -> Result<Process> {
    let Options { host, paths, .. } = options;
    host.write(&paths.bootstrap(), &launch.bootstrap, 0o640, Some(READABLE))
        .context("failed to write Envoy's bootstrap")?;
    let program = launch.program();
    let missing = || {
        let remedy = remedy(&options.config.source());
        format!("failed to start Envoy, {}: {remedy}", program.display())
    };
    let binary = Binary::at(&program).with_context(missing)?;
    let intent = Intent {
        unit: instance(options, before).await?,
        command_line: launch.command_line.clone(),
        binary,
        bootstrap: launch.bootstrap.clone(),
    };
    ledger::begin(host, paths, &intent)?;
    let started = match &intent.unit {
        None => spawn::start(launch, output).map_err(Into::into),
        Some(unit) => start_unit(options, unit, launch).await,
    };
    let pid = match started.with_context(missing) {
        Ok(pid) => pid,
        Err(error) => {
            ledger::end(host, paths, None)?;
            return Err(error);
        }
    };
    let process = Process::open(pid).context("failed to watch Envoy")?;
    ledger::end(host, paths, Some(Record::of(pid, &intent)?))?;
    tracing::info!(pid, "started Envoy");
    Ok(process)
}

/// The unit that it is to be; `None`: a process of the agent's.
async fn instance(options: &Options, before: Option<u32>) -> Result<Option<String>> {
    let (host, Some(template)) = (options.host.clone(), options.unit.clone()) else {
        return Ok(None);
    };
    let instance = tokio::task::spawn_blocking(move || unit::free_instance(&host, &template, before));
    Ok(Some(instance.await?))
}

async fn start_unit(options: &Options, unit: &str, launch: &Launch) -> Result<u32> {
    let (host, paths) = (options.host.clone(), options.paths.clone());
    let (unit, launch) = (unit.to_owned(), launch.clone());
    tokio::task::spawn_blocking(move || unit::start(&host, &paths, &unit, &launch)).await?
}

/// What to do about a program that doesn't start.
fn remedy(source: &EnvoySource) -> &'static str {
    match source {
        EnvoySource::Binary(_) => "check envoy.binary",
        _ => "is it for this kind of machine, and does the file system of paths.state let programs run (no `noexec`)?",
    }
}
