//! Envoy's supervision: one Envoy after another, adopted or started, watched, replaced.
//!
//! ```text
//!   a program and a membership: a LaunchSpec ◄──────────────────┐
//!                     │                                         │
//!      is the newest Envoy one of this specification?           │
//!        │ yes: adopt                  │ no: make way, start    │
//!        │                             │                        │
//!        ├◄────────────────────────────┤ fails                  │
//!        ▼                             ▼                        │
//!      watch ── dies ──────────► restart_later ── wait is over ─┤
//!        │                       (where none serves or has ever │
//!        │                        run, the agent's start fails) │
//!        └── another specification is wanted ───────────────────┘
//! ```
//!
//! While an Envoy is watched, the old one beside it serves until it is ready, and is drained and ended then.

use std::convert::Infallible;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::handover;
use super::readiness::{Incarnation, follow};
use super::restarts::{NextStart, Restarts};
use super::wanted::WantedSpec;
use crate::envoy::options::Options;
use crate::envoy::process::{EnvoyProcess, LaunchSpec, LogPipes, start};
use crate::envoy::source;
use crate::envoy::state::EnvoyStatePublisher;
use crate::facts::Membership;
use crate::supervise::{Process, Scope};

/// Keeps an Envoy running.
pub(in crate::envoy) struct EnvoySupervisor<'a> {
    options: Options,
    log_pipes: &'a LogPipes,
    state: &'a EnvoyStatePublisher,
    restarts: Restarts,
    /// The number of times that this agent started Envoy again; `None` until it has an Envoy.
    restart_count: Option<u32>,
}

/// The Envoy that is watched.
struct Watched {
    process: Process,
    adopted: bool,
    /// The Envoy that serves until this one does.
    old: Option<EnvoyProcess>,
}

/// Why an Envoy is watched no more.
enum End {
    /// Another one is wanted.
    Superseded(LaunchSpec),
    /// Envoy died, after having been ready for so long.
    Died { reason: String, served: Duration },
}

impl<'a> EnvoySupervisor<'a> {
    pub(in crate::envoy) fn new(options: Options, log_pipes: &'a LogPipes, state: &'a EnvoyStatePublisher) -> Self {
        let restarts = Restarts::new(options.config.restart_budget);
        Self {
            options,
            log_pipes,
            state,
            restarts,
            restart_count: None,
        }
    }

    /// Runs until dropped. Fails only when the first Envoy can't be started and no other one serves.
    pub(in crate::envoy) async fn run(mut self, scope: &Scope, mut wanted: WantedSpec) -> Result<Infallible> {
        let mut spec = wanted.spec().await;
        loop {
            if self.state.is_draining() {
                // The agent is on its way out: no further Envoy is to live.
                std::future::pending::<()>().await;
            }
            let reason = match self.adopt_or_start(&spec, scope).await {
                Ok(envoy) => match self.watch(&envoy, &spec, scope, &mut wanted).await {
                    End::Superseded(other) => {
                        spec = other;
                        continue;
                    }
                    End::Died { reason, served } => {
                        self.restarts.record_service(served);
                        reason
                    }
                },
                Err(error) if self.restart_count.is_none() && self.state.is_unserved() => return Err(error),
                Err(error) => format!("{error:#}"),
            };
            self.restart_later(reason).await;
            spec = wanted.spec().await;
        }
    }

    async fn adopt_or_start(&mut self, spec: &LaunchSpec, scope: &Scope) -> Result<Watched> {
        // An agent that has just begun has published nothing: the Envoys themselves say which of them serves.
        let serving = match self.state.serving() {
            Some(pid) => Some(pid),
            None => handover::serving_pid(&self.options).await,
        };
        let found = EnvoyProcess::newest(&self.options.host, &self.options.paths);
        let newest = found.as_ref().map(EnvoyProcess::pid);
        if let Some(found) = found {
            let pid = found.pid();
            let Some(difference) = found.record.differs_from(spec) else {
                // The one that is wanted runs, though an older one may still serve.
                tracing::info!(pid, "adopted the running Envoy");
                handover::move_admin_socket_back(&self.options, pid).await?;
                self.restart_count.get_or_insert(0);
                self.keep_serving(serving.filter(|serving| *serving != pid), scope);
                return self.beside_old(found.into_process(), true).await;
            };
            tracing::info!(pid, "another Envoy takes over: {difference}");
        }
        self.restarts.record_start(Instant::now());
        // One stays beside the new one: the one that serves or, where none says that it does, the newest, which may be
        // about to. The others end here.
        let old = handover::make_way(&self.options, serving.or(newest)).await?;
        // Only of one that does serve is that said.
        self.keep_serving(old.filter(|_| serving.is_some()), scope);
        let process = start(&self.options, spec, old, self.log_pipes).await?;
        let counts = &self.options.counts;
        if old.is_some() {
            counts.takeovers.inc();
        } else if self.restart_count.is_some() {
            counts.restarts.inc();
        }
        self.restart_count = Some(self.restart_count.map_or(0, |count| count.saturating_add(1)));
        self.beside_old(process, false).await
    }

    /// Publishes that an Envoy serves until the newest one is ready, and lets the other parts start meanwhile.
    fn keep_serving(&self, serving: Option<u32>, scope: &Scope) {
        if let Some(pid) = serving {
            self.state.ready_until_succeeded(pid);
            scope.ready();
        }
    }

    async fn beside_old(&self, process: Process, adopted: bool) -> Result<Watched> {
        let old = handover::old_envoy_of(&self.options, process.pid()).await?;
        Ok(Watched { process, adopted, old })
    }

    /// Watches an Envoy until it dies or another one is wanted.
    async fn watch(&self, envoy: &Watched, spec: &LaunchSpec, scope: &Scope, wanted: &mut WantedSpec) -> End {
        let pid = envoy.process.pid();
        let membership = wanted.membership();
        let incarnation = Incarnation {
            pid,
            adopted: envoy.adopted,
            restarts: self.restart_count.unwrap_or_default(),
        };
        let (ready_since, draining) = (OnceLock::new(), Mutex::new(()));
        let ready = || {
            ready_since.get_or_init(Instant::now);
            self.options.counts.slowed.set(0);
            scope.ready();
            source::remove_others(&self.options, &spec.program());
        };
        tokio::select! {
            biased;
            status = envoy.process.ended() => {
                let status = status.map_or_else(|| "exit status unknown, an earlier agent started it".to_owned(), |status| status.to_string());
                let errors = self.log_pipes.take_recent_errors();
                let colon = if errors.is_empty() { "" } else { ": " };
                End::Died {
                    reason: format!("Envoy, pid {pid}, ended ({status}){colon}{errors}"),
                    served: ready_since.get().map_or(Duration::ZERO, Instant::elapsed),
                }
            }
            other = wanted.superseding(spec, &draining) => End::Superseded(other),
            never = follow(&self.options, self.state, incarnation, ready) => match never {},
            never = self.drain_old(envoy, &membership, &draining) => match never {},
        }
    }

    /// Drains and ends the old Envoy, once this one serves, and holds `draining` meanwhile.
    async fn drain_old(&self, envoy: &Watched, membership: &Membership, draining: &Mutex<()>) -> Infallible {
        if let Some(old) = &envoy.old {
            let ended = handover::drain_old(old, &self.options, membership, self.state, draining).await;
            // It is of no harm: it accepts nothing any more, and a stop ends it.
            if let Err(error) = ended {
                tracing::warn!("{error:#}");
            }
        }
        std::future::pending().await
    }

    /// Publishes why Envoy is down, and waits until it is time for the next one.
    async fn restart_later(&mut self, reason: String) {
        let NextStart { wait, budget_spent } = self.restarts.next_start(Instant::now());
        self.options.counts.slowed.set(i64::from(budget_spent));
        let budget = self.options.config.restart_budget;
        let reason = if budget_spent {
            format!(
                "{reason}; {budget} starts in ten minutes failed, so the next try is in {} s",
                wait.as_secs()
            )
        } else {
            reason
        };
        tracing::error!("{reason}");
        if let Some(serving) = self.state.serving()
            && let Err(error) = handover::move_admin_socket_back(&self.options, serving).await
        {
            tracing::warn!("{error:#}");
        }
        self.state.down(None, reason);
        sleep(wait).await;
    }
}
