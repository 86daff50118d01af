//! The service's supervision: started, watched, started again, stopped in the end.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::unit::{self, Unit, UnitState};
use crate::config::ServiceConfig;
use crate::facts::{LivenessState, ServiceState};
use crate::host::Host;
use crate::supervise::{Backoff, Scope};
use crate::workload::dead::dead;
use crate::workload::draining::{Draining, until_drain};
use crate::workload::gate::Gate;

/// Time between two looks at the unit.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The time after which a service that ends is started again at once, as if for the first time.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Keeps the service going until the drain, then stops it.
///
/// It is started only after Envoy was ready once and while the rules are in, so that nobody can call it around Envoy. One
/// that runs already is left alone. The task is ready as soon as it knows what it is at; the state that is published says
/// whether the service runs.
pub(super) async fn run(
    scope: Scope,
    host: Host,
    config: ServiceConfig,
    gate: Gate,
    liveness: watch::Receiver<LivenessState>,
    publish: watch::Sender<ServiceState>,
) -> Result<()> {
    let mut supervisor = ServiceSupervisor {
        host,
        config,
        gate,
        liveness,
        publish,
        has_run: false,
        restarts: 0,
        scope: scope.clone(),
    };
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    loop {
        let began = Instant::now();
        let error = match supervisor.run_once().await {
            Ok(never) => match never {},
            Err(error) if error.is::<Draining>() => break,
            Err(error) => error,
        };
        if began.elapsed() >= STEADY_AFTER {
            backoff.reset();
        }
        supervisor.publish_state(ServiceState::Failed {
            error: format!("{error:#}"),
        });
        if until_drain(&scope, backoff.wait()).await.is_err() {
            break;
        }
    }
    supervisor.stop().await
}

struct ServiceSupervisor {
    host: Host,
    config: ServiceConfig,
    gate: Gate,
    liveness: watch::Receiver<LivenessState>,
    publish: watch::Sender<ServiceState>,
    /// True once the service ran under this agent.
    has_run: bool,
    restarts: u32,
    scope: Scope,
}

impl ServiceSupervisor {
    /// Starts the service unless it runs, and watches it to its end.
    async fn run_once(&mut self) -> Result<Infallible> {
        let (mut is_started, mut is_up, mut serves) = (false, false, 0);
        loop {
            match until_drain(&self.scope, self.look()).await??.state() {
                UnitState::Serves(pid) => {
                    self.restarts += u32::from(self.has_run && is_started && !is_up);
                    (is_up, self.has_run) = (true, true);
                    if pid != serves {
                        // What was said before is of the one before.
                        self.liveness.mark_unchanged();
                        serves = pid;
                    }
                    self.publish_state(ServiceState::Running {
                        unit: self.config.unit.clone(),
                        pid,
                        restarts: self.restarts,
                    });
                }
                UnitState::Changes(state) => self.publish_state(ServiceState::Waiting {
                    reason: format!("systemd has it in the state {state}"),
                }),
                UnitState::Ended(end) if is_up || is_started => {
                    let unasked = if is_up { "was stopped" } else { "did not start" };
                    let (unit, end) = (&self.config.unit, end.as_deref().unwrap_or(unasked));
                    bail!("{unit} {end} (see `journalctl --unit {unit}`)");
                }
                UnitState::Ended(_) => {
                    self.start().await?;
                    is_started = true;
                    continue;
                }
            }
            let looked = async {
                tokio::select! {
                    biased;
                    reason = dead(&mut self.liveness), if is_up => Some(reason),
                    () = sleep(LOOK_AGAIN) => None,
                }
            };
            if let Some(reason) = until_drain(&self.scope, looked).await? {
                self.stop().await?;
                bail!("{} was stopped, to be started again: {reason}", self.config.unit);
            }
        }
    }

    async fn look(&self) -> Result<Unit> {
        let name = self.config.unit.clone();
        self.host.blocking(move |host| Unit::look(host, &name)).await
    }

    /// Has systemd start the service once nobody can call it around Envoy.
    async fn start(&mut self) -> Result<()> {
        until_drain(&self.scope, self.look())
            .await??
            .expect_startable(&self.config.unit)?;
        while let Some(what) = self.gate.closed_by() {
            self.publish_state(ServiceState::Waiting {
                reason: format!("waits for {what}"),
            });
            until_drain(&self.scope, self.gate.changed()).await??;
        }
        // Awaited in a drain too, for a few seconds: the stop comes after it, and never before.
        let name = self.config.unit.clone();
        self.host.blocking(move |host| unit::start(host, &name)).await
    }

    async fn stop(&self) -> Result<()> {
        let (name, limit) = (self.config.unit.clone(), self.config.stop_timeout);
        self.host.blocking(move |host| unit::stop(host, &name, limit)).await?;
        tracing::info!(unit = self.config.unit, "stopped the service");
        Ok(())
    }

    fn publish_state(&self, state: ServiceState) {
        let unit = self.config.unit.as_str();
        let changed = self.publish.send_if_modified(|old| {
            let changed = *old != state;
            old.clone_from(&state);
            changed
        });
        match state {
            _ if !changed => {}
            ServiceState::NotConfigured => {}
            ServiceState::Waiting { reason } => tracing::info!(unit, reason, "the service is not started yet"),
            ServiceState::Running { pid, restarts, .. } => tracing::info!(unit, pid, restarts, "the service runs"),
            ServiceState::Failed { error } => tracing::warn!(unit, "{error}"),
        }
        self.scope.ready();
    }
}
