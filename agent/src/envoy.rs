//! Envoy: its bootstrap, its process, its end. Publishes `EnvoyState`.
//!
//! ```text
//! lifecycle (which Envoy lives) → source (its program) → state (what is published)
//!   → process (those that run, and how one starts) → options → bootstrap, admin
//! ```
//!
//! Envoy outlives the agent, and the next agent adopts it. Nothing here kills a process that is not an Envoy of this
//! run directory (`process::ledger`).

mod admin;
mod bootstrap;
mod container_eds;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod lifecycle;
mod options;
mod part;
mod process;
mod source;
mod state;

use std::sync::Arc;

use anyhow::{Context, Result};
use similar::TextDiff;
use tokio::sync::watch;

pub use admin::{Admin, Readiness};
pub use bootstrap::{BootstrapOptions, bootstrap};
pub use lifecycle::{drain, drain_grace};
pub use options::{Options, Outputs};
pub use part::{DrainPart, EnvoyPart};
pub use process::{become_envoy, command_line};
pub use source::{Build, Located, build, earlier, is_fetchable, locate, version};

use crate::config::PathsConfig;
use crate::facts::{ContainerState, EnvoyState, Membership};
use crate::host::Host;
use crate::supervise::Scope;
use lifecycle::{EnvoySupervisor, WantedSpec};
use options::ENVOY_USER;
use process::{EnvoyProcess, LaunchSpec, LogPipes, PidRecord, ledger};
use state::EnvoyStatePublisher;

/// Keeps an Envoy running: adopts the one that runs or starts one, starts it again when it dies, replaces it when
/// `membership` changes its bootstrap, and tells it where the container is. Ready once an Envoy is LIVE with
/// configuration. When drained it ends Envoy and removes its files; dropped without that, it leaves Envoy running.
///
/// Fails when the first Envoy can't be started at all. A later start that fails is tried again for ever.
pub async fn run(
    scope: Scope,
    options: Options,
    membership: watch::Receiver<Arc<Membership>>,
    container: watch::Receiver<ContainerState>,
    outputs: Outputs,
) -> Result<()> {
    let Options { host, paths, .. } = options.clone();
    prepare(&host, &paths).context("failed to make Envoy's directory")?;
    ledger::recover(&host, &paths, options.unit.as_deref()).await?;
    container_eds::prepare(&options)?;
    let log_pipes = LogPipes::open(&options).context("failed to open Envoy's output")?;
    let program = watch::Sender::new(None);
    let state = EnvoyStatePublisher::new(options.clone(), outputs.state.clone());
    let wanted = WantedSpec::new(options.clone(), program.subscribe(), membership);
    let supervisor = EnvoySupervisor::new(options.clone(), &log_pipes, &state);
    tokio::select! {
        biased;
        () = scope.draining() => {}
        failed = supervisor.run(&scope, wanted) => match failed? {},
        () = container_eds::follow(&options, container) => {}
        never = log_pipes.pump() => match never {},
        never = source::provide(&options, &program, &state, &outputs.problem) => match never {},
    }
    if program.borrow().is_none() {
        source::remove_cut_short(&options).await;
    }
    // Its output is read on meanwhile: Envoy may have last words, and must not wait for a reader.
    tokio::select! {
        stopped = stop_recorded(&host, &paths) => stopped.map(|_| ())?,
        never = log_pipes.pump() => match never {},
    }
    let reason = "stopped with the agent".to_owned();
    outputs.state.send_replace(EnvoyState::Down { reason });
    Ok(())
}

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

/// Makes the directory that is Envoy's own, below one that it may pass through.
fn prepare(host: &Host, paths: &PathsConfig) -> std::io::Result<()> {
    if !host.real_path(&paths.run).exists() {
        host.make_directory(&paths.run, 0o755, None)?;
    }
    host.make_directory(&paths.envoy(), 0o700, Some(ENVOY_USER))
}
