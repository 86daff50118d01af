//! `reload`: has the running agent take up the configuration, and says whether it did (what the unit runs).
//!
//! The configuration is judged here first, so that `systemctl reload` fails with the reason and the agent goes on
//! as it was. The agent then hands over to itself: what holds across a restart holds across a reload.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::run::prepare;
use super::{Outcome, print};
use crate::config::{Config, ConfigError, PathsConfig};
use crate::facts::EnvoyState;
use crate::host::Host;
use crate::status::{Agent, BUSY_TIMEOUT, Status, ask};

/// Longest time until the agent serves again; a new image may have to be pulled.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn run(path: &Path) -> Result<Outcome> {
    let (found, _) = prepare(path, &Host::system()).await?;
    let socket = found.config.paths.status_socket();
    let before = ask(&socket, BUSY_TIMEOUT).await;
    let (pid, since) = before.as_ref().ok().and_then(turn).with_context(|| {
        let reason = before.as_ref().err().map_or("it joins still", String::as_str);
        format!("there is no agent to reload at {}: {reason}", socket.display())
    })?;
    let process = i32::try_from(pid)
        .ok()
        .filter(|pid| *pid > 0)
        .map(Pid::from_raw)
        .context("status names no pid")?;
    kill(process, Signal::SIGHUP).with_context(|| format!("failed to signal the agent, pid {pid}"))?;
    tokio::time::timeout(PATIENCE, serves_again(&socket, since))
            .await
            .map_err(|_| anyhow!("the agent did not take the configuration up within {PATIENCE:?}: `istio-vm-agent status` and its log say why"))?;
    print("reloaded\n")
}

/// Whose turn it is: the agent's pid, and since when.
fn turn(status: &Status) -> Option<(u32, SystemTime)> {
    match &status.agent {
        Agent::Running { pid, since, .. } | Agent::Joining { pid, since, .. } => Some((*pid, *since)),
        Agent::NotAnswering { .. } => None,
    }
}

async fn serves_again(socket: &Path, before: SystemTime) {
    loop {
        if let Ok(status) = ask(socket, BUSY_TIMEOUT).await
            && turn(&status).is_some_and(|(_, since)| since != before)
            && status.health.ready
            && !is_taken_over(&status)
        {
            return;
        }
        tokio::time::sleep(POLL).await;
    }
}

/// True while the Envoy that serves is to make way for another.
fn is_taken_over(status: &Status) -> bool {
    let envoy = status.section::<EnvoyState>("envoy");
    envoy.is_some_and(|envoy| envoy.successor().is_some())
}

/// A configuration that the running agent can take up.
pub(super) fn fits(config: Config, paths: &PathsConfig) -> Result<Config, ConfigError> {
    if config.paths == *paths {
        return Ok(config);
    }
    Err(ConfigError::key(
        "paths",
        "can't change while the agent runs: stop it, change them, start it",
    ))
}
