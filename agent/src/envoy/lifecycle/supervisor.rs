//! One Envoy after another: adopted or started, watched, replaced.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::handover;
use super::readiness::{Incarnation, follow};
use super::restarts::{NextStart, Restarts};
use crate::envoy::options::Options;
use crate::envoy::process::{EnvoyProcess, LaunchSpec, LogPipes, start};
use crate::envoy::source;
use crate::envoy::state::EnvoyStatePublisher;
use crate::facts::Membership;
use crate::supervise::{Process, Scope};

/// Keeps an Envoy running.
pub(in crate::envoy) struct EnvoySupervisor<'a> {
    options: Options,
    /// What to run; `None` while there is nothing to run.
    program: watch::Receiver<Option<PathBuf>>,
    log_pipes: &'a LogPipes,
    state: EnvoyStatePublisher,
    restarts: Restarts,
    /// How often this agent started Envoy again; `None` before it has one.
    restart_count: Option<u32>,
}

/// An Envoy that runs.
struct Envoy {
    process: Process,
    adopted: bool,
    /// The one that serves until this one does.
    old: Option<EnvoyProcess>,
}

/// Why an Envoy is attended to no more.
enum End {
    Superseded,
    Died(String),
}

impl<'a> EnvoySupervisor<'a> {
    pub(in crate::envoy) fn new(
        options: Options,
        program: watch::Receiver<Option<PathBuf>>,
        log_pipes: &'a LogPipes,
        state: EnvoyStatePublisher,
    ) -> Self {
        let restarts = Restarts::new(options.config.restart_budget);
        Self {
            options,
            program,
            log_pipes,
            state,
            restarts,
            restart_count: None,
        }
    }

    /// Never ends but by failing to start the first Envoy where none serves.
    pub(in crate::envoy) async fn run(
        mut self,
        scope: &Scope,
        mut membership: watch::Receiver<Arc<Membership>>,
    ) -> Result<Infallible> {
        loop {
            let program = self.program().await;
            if self.state.is_draining() {
                // The agent is on its way out: no further Envoy is to live.
                std::future::pending::<()>().await;
            }
            let current = membership.borrow_and_update().clone();
            let spec = LaunchSpec::new(&self.options, &program, &current);
            let reason = match self.adopt_or_start(&spec, scope).await {
                Ok(envoy) => match self.watch(&envoy, &spec, scope, &mut membership).await {
                    // The next turn finds out how, and replaces it.
                    End::Superseded => continue,
                    End::Died(reason) => reason,
                },
                Err(error) if self.restart_count.is_none() && self.state.is_unserved() => return Err(error),
                Err(error) => format!("{error:#}"),
            };
            self.restart_later(reason).await;
        }
    }

    /// Waits for a program to run.
    async fn program(&mut self) -> PathBuf {
        loop {
            if let Some(program) = self.program.borrow_and_update().clone() {
                return program;
            }
            if self.program.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn adopt_or_start(&mut self, spec: &LaunchSpec, scope: &Scope) -> Result<Envoy> {
        let serving = match self.state.serving() {
            Some(pid) => Some(pid),
            None => handover::serving_pid(&self.options).await,
        };
        let found = EnvoyProcess::newest(&self.options.host, &self.options.paths);
        let newest = found.as_ref().map(EnvoyProcess::pid);
        if let Some(found) = found {
            let pid = found.pid();
            let Some(difference) = found.record.differs_from(spec) else {
                tracing::info!(pid, "adopted the running Envoy");
                handover::move_admin_socket_back(&self.options, pid).await?;
                self.restart_count.get_or_insert(0);
                self.keep_serving(serving.filter(|serving| *serving != pid), scope);
                return self.with_predecessor(found.into_process(), true).await;
            };
            tracing::info!(pid, "another Envoy takes over: {difference}");
        }
        self.restarts.record_start(Instant::now());
        let old = handover::make_way(&self.options, serving.or(newest)).await?;
        self.keep_serving(old.filter(|_| serving.is_some()), scope);
        let process = start(&self.options, spec, old, self.log_pipes).await?;
        self.restart_count = Some(
            self.restart_count
                .map_or(0, |restart_count| restart_count.saturating_add(1)),
        );
        self.with_predecessor(process, false).await
    }

    /// An Envoy that serves does so until the newest one is ready, and the other parts need not wait for that.
    fn keep_serving(&self, serving: Option<u32>, scope: &Scope) {
        if let Some(pid) = serving {
            self.state.ready_until_succeeded(pid);
            scope.ready();
        }
    }

    async fn with_predecessor(&self, process: Process, adopted: bool) -> Result<Envoy> {
        let old = handover::old_envoy_of(&self.options, process.pid()).await?;
        Ok(Envoy { process, adopted, old })
    }

    /// Watches an Envoy until it dies or is no longer the one to run.
    async fn watch(
        &self,
        envoy: &Envoy,
        spec: &LaunchSpec,
        scope: &Scope,
        membership: &mut watch::Receiver<Arc<Membership>>,
    ) -> End {
        let pid = envoy.process.pid();
        let current = membership.borrow().clone();
        let incarnation = Incarnation {
            pid,
            adopted: envoy.adopted,
            restarts: self.restart_count.unwrap_or_default(),
        };
        let ready = || {
            scope.ready();
            source::remove_others(&self.options, &spec.program());
        };
        tokio::select! {
            biased;
            status = envoy.process.ended() => {
                let status = status.map_or_else(|| "exit status unknown, an earlier agent started it".to_owned(), |status| status.to_string());
                let errors = self.log_pipes.take_recent_errors();
                let colon = if errors.is_empty() { "" } else { ": " };
                End::Died(format!("Envoy, pid {pid}, ended ({status}){colon}{errors}"))
            }
            () = self.superseded(spec, membership) => End::Superseded,
            never = follow(&self.options, &self.state, incarnation, ready) => match never {},
            never = self.drain_old(envoy, &current) => match never {},
        }
    }

    /// Completes when another Envoy than `spec` is asked for.
    async fn superseded(&self, spec: &LaunchSpec, membership: &mut watch::Receiver<Arc<Membership>>) {
        let mut program = self.program.clone();
        loop {
            let wanted = program.borrow_and_update().clone().unwrap_or_else(|| spec.program());
            let current = membership.borrow_and_update().clone();
            if LaunchSpec::new(&self.options, &wanted, &current) != *spec {
                return;
            }
            // Where nobody publishes any more, it stays as it is.
            tokio::select! {
                Ok(()) = membership.changed() => {}
                Ok(()) = program.changed() => {}
                else => std::future::pending().await,
            }
        }
    }

    /// Ends the Envoy before, once this one serves.
    async fn drain_old(&self, envoy: &Envoy, membership: &Membership) -> Infallible {
        if let Some(old) = &envoy.old {
            let ended = handover::drain_old(old, &self.options, membership, &self.state).await;
            // It is of no harm: it accepts nothing any more, and a stop ends it.
            if let Err(error) = ended {
                tracing::warn!("{error:#}");
            }
        }
        std::future::pending().await
    }

    /// Says why Envoy is down, and waits until it is time for the next one.
    async fn restart_later(&mut self, reason: String) {
        let NextStart { wait, budget_spent } = self.restarts.next_start(Instant::now());
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
        self.state.failing(None, reason);
        sleep(wait).await;
    }
}
