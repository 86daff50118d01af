//! One Envoy after another: adopted or started, watched, replaced.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::handover;
use super::readiness::{Told, follow};
use super::restarts::{Next, Restarts};
use crate::envoy::options::Options;
use crate::envoy::process::{Launch, Output, Running, start};
use crate::envoy::source;
use crate::envoy::state::Standing;
use crate::facts::Membership;
use crate::supervise::{Process, Scope};

/// Keeps an Envoy running.
pub(in crate::envoy) struct Keeper<'a> {
    options: Options,
    /// What to run; `None` while there is nothing to run.
    program: watch::Receiver<Option<PathBuf>>,
    output: &'a Output,
    standing: Standing,
    restarts: Restarts,
    /// How often this agent started Envoy again; `None` before it has one.
    again: Option<u32>,
}

/// An Envoy that runs.
struct Envoy {
    process: Process,
    adopted: bool,
    /// The one that serves until this one does.
    before: Option<Running>,
}

/// Why an Envoy is attended to no more.
enum End {
    Changed,
    Died(String),
}

impl<'a> Keeper<'a> {
    pub(in crate::envoy) fn new(
        options: Options,
        program: watch::Receiver<Option<PathBuf>>,
        output: &'a Output,
        standing: Standing,
    ) -> Self {
        let restarts = Restarts::new(options.config.restart_budget);
        Self {
            options,
            program,
            output,
            standing,
            restarts,
            again: None,
        }
    }

    /// Never ends but by failing to start the first Envoy where none serves.
    pub(in crate::envoy) async fn keep(
        mut self,
        scope: &Scope,
        mut membership: watch::Receiver<Arc<Membership>>,
    ) -> Result<Infallible> {
        loop {
            let program = self.program().await;
            if self.standing.is_draining() {
                // The agent is on its way out: no further Envoy is to live.
                std::future::pending::<()>().await;
            }
            let current = membership.borrow_and_update().clone();
            let launch = Launch::new(&self.options, &program, &current);
            let reason = match self.adopt_or_start(&launch, scope).await {
                Ok(envoy) => match self.attend(&envoy, &launch, scope, &mut membership).await {
                    // The next turn finds out how, and replaces it.
                    End::Changed => continue,
                    End::Died(reason) => reason,
                },
                Err(error) if self.again.is_none() && self.standing.is_none() => return Err(error),
                Err(error) => format!("{error:#}"),
            };
            self.mourn(reason).await;
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

    async fn adopt_or_start(&mut self, launch: &Launch, scope: &Scope) -> Result<Envoy> {
        let serving = match self.standing.serving() {
            Some(pid) => Some(pid),
            None => handover::serving(&self.options).await,
        };
        let found = Running::newest(&self.options.host, &self.options.paths);
        let newest = found.as_ref().map(Running::pid);
        if let Some(found) = found {
            let pid = found.pid();
            let Some(difference) = found.record.differs_from(launch) else {
                tracing::info!(pid, "adopted the running Envoy");
                handover::come_back(&self.options, pid).await?;
                self.again.get_or_insert(0);
                self.leave_to(serving.filter(|serving| *serving != pid), scope);
                return self.with_predecessor(found.into_process(), true).await;
            };
            tracing::info!(pid, "another Envoy takes over: {difference}");
        }
        self.restarts.started(Instant::now());
        let before = handover::make_way(&self.options, serving.or(newest)).await?;
        self.leave_to(before.filter(|_| serving.is_some()), scope);
        let process = start(&self.options, launch, before, self.output).await?;
        self.again = Some(self.again.map_or(0, |again| again.saturating_add(1)));
        self.with_predecessor(process, false).await
    }

    /// An Envoy that serves does so until the newest one is ready, and the other parts need not wait for that.
    fn leave_to(&self, serving: Option<u32>, scope: &Scope) {
        if let Some(pid) = serving {
            self.standing.serves_until_succeeded(pid);
            scope.ready();
        }
    }

    async fn with_predecessor(&self, process: Process, adopted: bool) -> Result<Envoy> {
        let before = handover::of(&self.options, process.pid()).await?;
        Ok(Envoy {
            process,
            adopted,
            before,
        })
    }

    /// Watches an Envoy until it dies or is no longer the one to run.
    async fn attend(
        &self,
        envoy: &Envoy,
        launch: &Launch,
        scope: &Scope,
        membership: &mut watch::Receiver<Arc<Membership>>,
    ) -> End {
        let pid = envoy.process.pid();
        let current = membership.borrow().clone();
        let told = Told {
            pid,
            adopted: envoy.adopted,
            restarts: self.again.unwrap_or_default(),
        };
        let ready = || {
            scope.ready();
            source::forget_others(&self.options, &launch.program());
        };
        tokio::select! {
            biased;
            status = envoy.process.ended() => {
                let status = status.map_or_else(|| "exit status unknown, an earlier agent started it".to_owned(), |status| status.to_string());
                let complaints = self.output.take_complaints();
                let colon = if complaints.is_empty() { "" } else { ": " };
                End::Died(format!("Envoy, pid {pid}, ended ({status}){colon}{complaints}"))
            }
            () = self.changed(launch, membership) => End::Changed,
            never = follow(&self.options, &self.standing, told, ready) => match never {},
            never = self.see_off(envoy, &current) => match never {},
        }
    }

    /// Completes when another Envoy than `launch` is asked for.
    async fn changed(&self, launch: &Launch, membership: &mut watch::Receiver<Arc<Membership>>) {
        let mut program = self.program.clone();
        loop {
            let wanted = program.borrow_and_update().clone().unwrap_or_else(|| launch.program());
            let current = membership.borrow_and_update().clone();
            if Launch::new(&self.options, &wanted, &current) != *launch {
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
    async fn see_off(&self, envoy: &Envoy, membership: &Membership) -> Infallible {
        if let Some(before) = &envoy.before {
            let ended = handover::see_off(before, &self.options, membership, &self.standing).await;
            // It is of no harm: it accepts nothing any more, and a stop ends it.
            if let Err(error) = ended {
                tracing::warn!("{error:#}");
            }
        }
        std::future::pending().await
    }

    /// Says why Envoy is down, and waits until it is time for the next one.
    async fn mourn(&mut self, reason: String) {
        let Next { wait, spent } = self.restarts.next(Instant::now());
        let budget = self.options.config.restart_budget;
        let reason = if spent {
            format!(
                "{reason}; {budget} starts in ten minutes failed, so the next try is in {} s",
                wait.as_secs()
            )
        } else {
            reason
        };
        tracing::error!("{reason}");
        if let Some(serving) = self.standing.serving()
            && let Err(error) = handover::come_back(&self.options, serving).await
        {
            tracing::warn!("{error:#}");
        }
        self.standing.fails(None, reason);
        sleep(wait).await;
    }
}
