//! The start of an Envoy, as a unit or as a process of the agent's, written down in the ledger.

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use super::binary::Binary;
use super::launch_spec::LaunchSpec;
use super::log_pipes::LogPipes;
use super::pid_record::{PendingStart, PidRecord};
use super::{TERM_GRACE, ledger, spawn, unit};
use crate::config::EnvoySource;
use crate::envoy::options::{ENVOY_READABLE, Options};
use crate::host::Host;
use crate::supervise::Process;

/// Starts the Envoy that `spec` says, beside the Envoy `old`, from which it takes over.
pub(in crate::envoy) async fn start(
    options: &Options,
    spec: &LaunchSpec,
    old: Option<u32>,
    log_pipes: &LogPipes,
) -> Result<Process> {
    let Options { host, paths, .. } = options;
    host.write_until_reboot(&paths.bootstrap(), &spec.bootstrap, 0o640, Some(ENVOY_READABLE))
        .context("failed to write Envoy's bootstrap")?;
    let program = spec.program();
    let missing = || {
        let remedy = remedy(&options.config.source());
        format!("failed to start Envoy, {}: {remedy}", program.display())
    };
    let binary = Binary::at(&program).with_context(missing)?;
    let pending = PendingStart {
        unit: free_instance(options, old).await?,
        command_line: spec.command_line.clone(),
        binary,
        bootstrap: spec.bootstrap.clone(),
    };
    ledger::record_pending(host, paths, &pending)?;
    let started = match &pending.unit {
        None => spawn::start(spec, log_pipes).map_err(Into::into),
        Some(unit) => start_unit(options, unit, spec).await,
    };
    let pid = match started.with_context(missing) {
        Ok(pid) => pid,
        Err(error) => {
            ledger::record_started(host, paths, None)?;
            return Err(error);
        }
    };
    let process = match Process::open(pid) {
        Ok(process) => process,
        Err(error) => {
            end_unwatched(pid);
            return Err(error).context("failed to watch Envoy");
        }
    };
    let recorded = PidRecord::new(pid, &pending).and_then(|record| ledger::record_started(host, paths, Some(record)));
    if let Err(error) = recorded {
        // It is in no list that anybody ends it by.
        let ended = process.terminate(TERM_GRACE).await;
        ended.unwrap_or_else(|error| tracing::warn!(pid, "failed to end an Envoy that is not written down: {error}"));
        return Err(error);
    }
    tracing::info!(pid, "started Envoy");
    Ok(process)
}

/// Ends an Envoy that there was no descriptor to watch it by. It was started just now, so the number is its own still.
fn end_unwatched(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::KILL)) {
        tracing::warn!("failed to end an Envoy that can't be watched: {error}");
    }
}

/// The unit for an Envoy that takes over from `old`; `None`: it is a process of the agent's.
async fn free_instance(options: &Options, old: Option<u32>) -> Result<Option<String>> {
    let Some(template) = options.unit.clone() else {
        return Ok(None);
    };
    let instance = move |host: &Host| Ok(Some(unit::free_instance(host, &template, old)));
    options.host.blocking(instance).await
}

async fn start_unit(options: &Options, unit: &str, spec: &LaunchSpec) -> Result<u32> {
    let (paths, unit, spec) = (options.paths.clone(), unit.to_owned(), spec.clone());
    let start = move |host: &Host| unit::start(host, &paths, &unit, &spec);
    options.host.blocking(start).await
}

/// The advice about a program that doesn't start.
fn remedy(source: &EnvoySource) -> &'static str {
    match source {
        EnvoySource::Binary(_) => "check envoy.binary",
        _ => "is it for this kind of machine, and does the file system of paths.state let programs run (no `noexec`)?",
    }
}
