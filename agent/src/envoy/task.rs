//! Envoy's task: all that runs of it while the agent does.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::lifecycle::{EnvoySupervisor, WantedSpec};
use super::offline::stop_recorded;
use super::options::{Options, Outputs};
use super::process::{LogPipes, ledger};
use super::state::EnvoyStatePublisher;
use super::version;
use super::{container_eds, source};
use crate::config::PathsConfig;
use crate::facts::{EnvoyState, Membership};
use crate::host::Host;
use crate::part::{ENVOY_USER, WorkloadChannels};
use crate::supervise::Scope;

/// Keeps an Envoy running: adopts the one that runs or starts one, starts it again when it dies, replaces it when
/// `membership` changes its bootstrap, and tells it where the containers are. Ready once an Envoy is LIVE with
/// configuration. When drained it ends Envoy and removes its files; dropped without that, it leaves Envoy running.
///
/// Fails when the first Envoy can't be started at all. A later start that fails is tried again for ever.
pub async fn run(
    scope: Scope,
    options: Options,
    membership: watch::Receiver<Arc<Membership>>,
    workloads: Arc<[WorkloadChannels]>,
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
        () = container_eds::follow(&options, &workloads) => {}
        never = log_pipes.pump() => match never {},
        never = version::follow(&options, outputs.state.subscribe(), &outputs.version) => match never {},
        never = source::provide(&options, &program, &state, &outputs.problem) => match never {},
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

/// Makes the directory that is Envoy's own, below one that it may pass through.
fn prepare(host: &Host, paths: &PathsConfig) -> std::io::Result<()> {
    if !host.exists(&paths.run) {
        host.make_directory(&paths.run, 0o755, None)?;
    }
    host.make_directory(&paths.envoy(), 0o700, Some(ENVOY_USER))
}
