//! Asks the application how it is, and tells transitions. Publishes `ProbeState`; never restarts anything.

mod streak;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::config::PortMapping;
use crate::facts::{ContainerState, EnvoyState, LastProbe, LivenessState, Membership, Probe, ProbeCounts, ProbeState};
use crate::part::any_changed;
use crate::probing::{self, Place, of_container};
use crate::supervise::Scope;
pub(super) use streak::Streak;
use streak::{NO_ENVOY, NOT_ALIVE};

/// Longest time between probes until the first healthy one: with the default period of 10 s a VM would join
/// the mesh up to 10 s after its application came up.
const FIRST_PERIOD: Duration = Duration::from_millis(500);

/// The probe, and the unit of its commands.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// The probe.
    pub(super) probe: Probe,
    /// Reason for which the probe is not asked at all, and the application so never healthy.
    pub(super) refused: Option<&'static str>,
    /// The agent's own systemd unit: commands run in units of their own that end with it. Absent: they are the
    /// agent's processes.
    pub(super) unit: Option<String>,
    /// True for an agent that takes over from one under which the VM was well: another Envoy may have taken over meanwhile.
    pub(super) resumes: bool,
    /// Counts of the application's answers.
    pub(super) counts: ProbeCounts,
}

/// The facts that a probe depends on.
#[derive(Debug)]
pub(super) struct Facts {
    /// The VM's addresses.
    pub(super) membership: watch::Receiver<Arc<Membership>>,
    /// Envoy, which the application is called through.
    pub(super) envoy: watch::Receiver<EnvoyState>,
    /// The life of each application that it is about, before which that isn't judged.
    pub(super) liveness: Vec<watch::Receiver<LivenessState>>,
    /// The containers of this VM, with the ports that they publish.
    pub(super) containers: Vec<(Vec<PortMapping>, watch::Receiver<ContainerState>)>,
}

/// Probes until the drain: after the initial delay, at once whenever Envoy becomes ready, and every period.
pub(super) async fn run(
    scope: Scope,
    options: Options,
    facts: Facts,
    publish: watch::Sender<ProbeState>,
) -> Result<()> {
    publish.send_replace(ProbeState::Unknown);
    scope.ready();
    tokio::select! {
        biased;
        () = scope.draining() => Ok(()),
        never = keep(&options, facts, &publish) => match never {},
    }
}

async fn keep(options: &Options, facts: Facts, publish: &watch::Sender<ProbeState>) -> Infallible {
    let Facts {
        membership,
        mut envoy,
        mut liveness,
        containers,
    } = facts;
    let probe = &options.probe;
    let mut streak = Streak::new(probe);
    let mut last_behind = None;
    sleep(probe.initial_delay).await;
    loop {
        let began = Instant::now();
        let behind = envoy.borrow_and_update().clone();
        let behind_envoy = behind.is_ready();
        // All are looked at: one that is not would count as changed.
        let lives = liveness.iter_mut().map(|it| is_alive(&it.borrow_and_update()));
        let alive = lives.fold(true, |all, lives| all & lives);
        let result = match (behind_envoy, alive) {
            (true, true) => {
                let vm = Place::Vm(membership.borrow().instance_ips.first().copied());
                let mut result = ask(options, probe, vm).await;
                let now = envoy.borrow().clone();
                let is_first = last_behind.is_none() && options.resumes;
                let before = last_behind.as_ref().unwrap_or(&behind);
                if result.is_err() && (is_first || changes_hands(before, &behind) || changes_hands(&behind, &now)) {
                    let (probe, place) = beside_envoy(probe, &containers).unwrap_or_else(|| (probe.clone(), vm));
                    result = ask(options, &probe, place).await;
                }
                counted(result, &options.counts)
            }
            (false, _) => Err(NO_ENVOY.to_owned()),
            (true, false) => Err(NOT_ALIVE.to_owned()),
        };
        last_behind = Some(behind);
        if let Err(reason) = &result {
            tracing::debug!(reason, "a health probe failed");
        }
        if let Some(state) = streak.observe(result) {
            match state {
                ProbeState::Unhealthy { reason } => tracing::warn!(reason, "the application is unhealthy"),
                _ => tracing::info!("the application is healthy"),
            }
            publish.send_replace(state.clone());
        }
        let period = match streak.ever_healthy() {
            true => probe.period,
            false => probe.period.min(FIRST_PERIOD),
        };
        tokio::select! {
            () = sleep_until(began + period) => {}
            () = becomes_ready(&mut envoy, behind_envoy) => {}
            Ok(()) = any_changed(&mut liveness) => {}
        }
    }
}

/// True for an application that may be judged.
fn is_alive(liveness: &LivenessState) -> bool {
    matches!(liveness, LivenessState::NotConfigured | LivenessState::Alive)
}

/// Completes when Envoy comes back: a VM whose Envoy was down for a moment serves again within that moment.
async fn becomes_ready(envoy: &mut watch::Receiver<EnvoyState>, was_ready: bool) {
    let edge = async {
        if was_ready {
            envoy.wait_for(|state| !state.is_ready()).await?;
        }
        envoy.wait_for(EnvoyState::is_ready).await.map(drop)
    };
    if edge.await.is_err() {
        // Envoy's task is gone, and so is the agent soon.
        std::future::pending::<()>().await;
    }
}

fn counted(result: Result<(), String>, counts: &ProbeCounts) -> Result<(), String> {
    match result {
        Ok(()) => counts.successes.inc(),
        Err(_) => counts.failures.inc(),
    };
    counts.last.send_replace(Some(LastProbe {
        at: SystemTime::now(),
        failure: result.as_ref().err().cloned(),
    }));
    result
}

/// True while one Envoy takes over from another, and for the first probe behind the one that has: either may let a
/// container's probe wait, or drop it.
fn changes_hands(before: &EnvoyState, now: &EnvoyState) -> bool {
    let is_other = before.is_ready() && now.is_ready() && before != now;
    is_other || now.successor().is_some()
}

/// The way to the application that Envoy has no say in: a container's own address.
fn beside_envoy(
    probe: &Probe,
    containers: &[(Vec<PortMapping>, watch::Receiver<ContainerState>)],
) -> Option<(Probe, Place)> {
    let port = probe.port()?;
    let is_of = |(ports, _): &&(Vec<PortMapping>, _)| ports.iter().any(|published| published.host == port);
    let (ports, container) = containers.iter().find(is_of)?;
    match *container.borrow() {
        ContainerState::Running { address, .. } => Some((of_container(probe, ports), Place::Container(address?))),
        _ => None,
    }
}

/// One probe; the error is the reason.
async fn ask(options: &Options, probe: &Probe, place: Place) -> Result<(), String> {
    match options.refused {
        Some(reason) => Err(reason.to_owned()),
        None => probing::ask(probe, place, options.unit.as_deref()).await,
    }
}

#[cfg(test)]
mod tests;
