//! `reload`: has the running agent take up the configuration, and says whether it did (what the unit runs).
//!
//! The configuration is judged here first, so that `systemctl reload` fails with the reason and the agent goes on
//! as it was. The agent then hands over to itself: what holds across a restart holds across a reload.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::configuration::prepare;
use super::{Outcome, print};
use crate::facts::{EnvoyState, Health};
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
    let mut taken_up = None;
    let waited = tokio::time::timeout(PATIENCE, serves_again(&socket, since, &mut taken_up)).await;
    print(&report(waited.is_ok(), taken_up)?)
}

/// The words for a reload: that it serves again; else what keeps it from that, once it has been taken up.
fn report(serves: bool, taken_up: Option<Health>) -> Result<String> {
    if serves {
        return Ok("reloaded\n".to_owned());
    }
    let health = taken_up.ok_or_else(|| {
        anyhow!(
            "the agent did not take the configuration up within {PATIENCE:?}: `istio-vm-agent status` and its log say why"
        )
    })?;
    let problems = match health.problems.as_slice() {
        [] => "another Envoy takes over still".to_owned(),
        problems => problems.join("; "),
    };
    Ok(format!(
        "taken up, and not ready after {PATIENCE:?} because {problems}\n"
    ))
}

/// Whose turn it is: the agent's pid, and since when.
fn turn(status: &Status) -> Option<(u32, SystemTime)> {
    match &status.agent {
        Agent::Running { pid, since, .. } | Agent::Joining { pid, since, .. } => Some((*pid, *since)),
        Agent::NotAnswering { .. } => None,
    }
}

/// `taken_up`: how the agent is with the configuration, from when it has it on.
async fn serves_again(socket: &Path, before: SystemTime, taken_up: &mut Option<Health>) {
    loop {
        if let Ok(status) = ask(socket, BUSY_TIMEOUT).await
            && turn(&status).is_some_and(|(_, since)| since != before)
        {
            if status.health.ready && !is_taken_over(&status) {
                return;
            }
            *taken_up = Some(status.health);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// True while the Envoy that serves is to make way for another.
fn is_taken_over(status: &Status) -> bool {
    let envoy = status.section::<EnvoyState>("envoy");
    envoy.is_some_and(|envoy| envoy.successor().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reload_that_was_taken_up_is_no_failure() {
        let health = |problems: &[&str]| Health {
            ready: false,
            problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
        };
        assert_eq!(report(true, None).unwrap(), "reloaded\n");
        let away = report(false, Some(health(&["istiod is not reached"]))).unwrap();
        assert_eq!(
            away,
            "taken up, and not ready after 60s because istiod is not reached\n"
        );
        assert!(report(false, Some(health(&[]))).unwrap().contains("another Envoy"));
        assert!(report(false, None).is_err());
    }
}
