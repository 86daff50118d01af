//! One Envoy after another: adopted or started, watched, replaced.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::launch::{Binary, Launch};
use super::output::Output;
use super::predecessor::{self, Predecessor};
use super::record::{self, Record};
use super::restarts::{Next, Restarts};
use super::{Admin, Options, READABLE, publish, source, spawn, unit};
use crate::config::{EnvoySource, PathsConfig};
use crate::facts::{EnvoyState, Membership};
use crate::host::Host;
use crate::supervise::{Process, Scope};

/// How soon, and at the longest how often, a starting Envoy is asked whether it is ready. An answer costs it less
/// than a millisecond, and each one that comes late is lost to the start.
const STARTING_POLL: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(500));
/// How often a ready one is asked.
const READY_POLL: Duration = Duration::from_secs(5);
/// An admin interface that is silent for so long is stuck, not slow.
const SILENCE: Duration = Duration::from_secs(30);

/// Keeps an Envoy running.
pub(super) struct Keeper<'a> {
    options: Options,
    /// What to run; `None` while there is nothing to run.
    program: watch::Receiver<Option<PathBuf>>,
    output: &'a Output,
    state: watch::Sender<EnvoyState>,
    restarts: Restarts,
    /// How often this agent started Envoy again; `None` before it has one.
    again: Option<u32>,
}

/// An Envoy that runs.
struct Envoy {
    process: Process,
    adopted: bool,
    /// The one that serves until this one does.
    before: Option<Predecessor>,
}

/// Why an Envoy is attended to no more.
enum End {
    Changed,
    Died(String),
}

impl<'a> Keeper<'a> {
    pub(super) fn new(
        options: Options,
        program: watch::Receiver<Option<PathBuf>>,
        output: &'a Output,
        state: watch::Sender<EnvoyState>,
    ) -> Self {
        let restarts = Restarts::new(options.config.restart_budget);
        Self {
            options,
            program,
            output,
            state,
            restarts,
            again: None,
        }
    }

    /// Never ends but by failing to start the first Envoy.
    pub(super) async fn keep(
        mut self,
        scope: &Scope,
        mut membership: watch::Receiver<Arc<Membership>>,
    ) -> Result<Infallible> {
        loop {
            let program = self.program().await;
            let current = membership.borrow_and_update().clone();
            let launch = Launch::new(&self.options, &program, &current);
            let reason = match self.adopt_or_start(&launch).await {
                Ok(envoy) => match self.attend(&envoy, &launch, scope, &mut membership).await {
                    // The next turn finds out how, and replaces it.
                    End::Changed => continue,
                    End::Died(reason) => reason,
                },
                Err(error) if self.again.is_none() => return Err(error),
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

    async fn adopt_or_start(&mut self, launch: &Launch) -> Result<Envoy> {
        let Options { host, paths, .. } = &self.options;
        let found = record::find(host, paths).and_then(|record| Some((record.open()?, record)));
        let newest = found.as_ref().map(|(process, _)| process.pid());
        if let Some((process, record)) = found {
            let Some(difference) = record.differs_from(launch) else {
                tracing::info!(pid = record.pid, "adopted the running Envoy");
                predecessor::come_back(&self.options, record.pid).await?;
                self.again.get_or_insert(0);
                return self.with_predecessor(process, true).await;
            };
            tracing::info!(pid = record.pid, "another Envoy takes over: {difference}");
        }
        let before = predecessor::make_way(&self.options, self.serving().or(newest)).await?;
        let process = self.start(launch, before).await?;
        self.again = Some(self.again.map_or(0, |again| again.saturating_add(1)));
        self.with_predecessor(process, false).await
    }

    async fn with_predecessor(&self, process: Process, adopted: bool) -> Result<Envoy> {
        let before = Predecessor::of(&self.options, &process).await?;
        Ok(Envoy {
            process,
            adopted,
            before,
        })
    }

    /// The Envoy that serves, as far as was said.
    fn serving(&self) -> Option<u32> {
        match *self.state.borrow() {
            EnvoyState::Ready { pid, .. } => Some(pid),
            _ => None,
        }
    }

    async fn start(&mut self, launch: &Launch, before: Option<u32>) -> Result<Process> {
        let Options {
            host,
            paths,
            config,
            unit,
            ..
        } = &self.options;
        host.write(&paths.bootstrap(), &launch.bootstrap, 0o640, Some(READABLE))
            .context("failed to write Envoy's bootstrap")?;
        self.restarts.started(Instant::now());
        let program = launch.program();
        let missing = || {
            format!(
                "failed to start Envoy, {}: {}",
                program.display(),
                remedy(&config.source())
            )
        };
        let binary = Binary::at(&program).with_context(missing)?;
        let pid = match unit {
            None => spawn::start(launch, self.output).with_context(missing)?,
            Some(unit) => {
                let started = start_unit(host, paths, unit, before, launch).await;
                started.with_context(missing)?
            }
        };
        let process = Process::open(pid).context("failed to watch Envoy")?;
        // Unrecorded it is found by its command line, so this is no reason to end it.
        if let Err(error) = Record::of(pid, launch, binary).and_then(|record| record.write(host, paths)) {
            tracing::warn!(pid, "{error:#}");
        }
        tracing::info!(pid, "started Envoy");
        Ok(process)
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
        let admin = self.options.admin();
        let current = membership.borrow().clone();
        self.say(envoy, false);
        tokio::select! {
            biased;
            status = envoy.process.ended() => {
                let status = status.map_or_else(|| "exit status unknown, an earlier agent started it".to_owned(), |status| status.to_string());
                let complaints = self.output.take_complaints();
                let colon = if complaints.is_empty() { "" } else { ": " };
                End::Died(format!("Envoy, pid {pid}, ended ({status}){colon}{complaints}"))
            }
            () = self.changed(launch, membership) => End::Changed,
            never = self.watch(envoy, &admin, launch, scope) => match never {},
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

    /// Publishes whether Envoy is ready.
    async fn watch(&self, envoy: &Envoy, admin: &Admin, launch: &Launch, scope: &Scope) -> Infallible {
        let pid = envoy.process.pid();
        let (mut poll, longest) = STARTING_POLL;
        let (mut ready, mut heard) = (false, Instant::now());
        loop {
            match admin.readiness().await {
                Ok(readiness) => {
                    heard = Instant::now();
                    // As in Istio, once is for ever: a later update that Envoy refuses does not stop it serving.
                    if readiness.is_ready() && !ready {
                        ready = true;
                        source::forget_others(&self.options, &launch.program());
                    }
                    self.say(envoy, ready);
                }
                Err(error) if heard.elapsed() >= SILENCE => self.complain(pid, heard.elapsed(), &error),
                Err(_) => {}
            }
            if ready {
                scope.ready();
                poll = READY_POLL;
            }
            sleep(poll).await;
            poll = (poll * 21 / 20).min(longest.max(poll));
        }
    }

    fn say(&self, envoy: &Envoy, ready: bool) {
        let pid = envoy.process.pid();
        let state = if ready {
            EnvoyState::Ready {
                pid,
                adopted: envoy.adopted,
                restarts: self.again.unwrap_or_default(),
            }
        } else if self.is_served_by(envoy.before.as_ref()) {
            return;
        } else {
            EnvoyState::Starting { pid }
        };
        if publish(&self.state, state) && ready {
            tracing::info!(pid, "Envoy is ready");
        }
    }

    /// Whether what was said of the Envoy before still holds.
    fn is_served_by(&self, before: Option<&Predecessor>) -> bool {
        self.serving().is_some() && before.is_some_and(|before| before.is_running())
    }

    /// A stuck Envoy is shown and not killed: its workers may well serve on.
    fn complain(&self, pid: u32, silence: Duration, error: &anyhow::Error) {
        let reason = format!(
            "runs, and its admin interface does not answer: `kill -ABRT {pid}` has it started again, with a trace in the log"
        );
        if publish(&self.state, EnvoyState::Down { reason }) {
            tracing::error!(
                pid,
                "Envoy runs and has not answered for {} s: {error:#}",
                silence.as_secs()
            );
        }
    }

    /// Ends the Envoy before, once this one serves.
    async fn see_off(&self, envoy: &Envoy, membership: &Membership) -> Infallible {
        if let Some(before) = &envoy.before {
            let ended = before.see_off(&self.options, membership, &self.state).await;
            // It is of no harm: it accepts nothing any more, and a stop ends it.
            if let Err(error) = ended {
                tracing::warn!("{error:#}");
            }
        }
        std::future::pending().await
    }

    /// Says why Envoy is down, and waits until it is time for the next one.
    async fn mourn(&mut self, reason: String) {
        let draining = matches!(*self.state.borrow(), EnvoyState::Draining { .. });
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
        if self.serving().is_none_or(|pid| {
            !record::all(&self.options.host, &self.options.paths)
                .iter()
                .any(|it| it.pid == pid)
        }) {
            publish(&self.state, EnvoyState::Down { reason });
        }
        if draining {
            // The agent is on its way out: this one was not to live on.
            std::future::pending::<()>().await;
        }
        sleep(wait).await;
    }
}

/// What to do about a program that doesn't start.
fn remedy(source: &EnvoySource) -> &'static str {
    match source {
        EnvoySource::Binary(_) => "check envoy.binary",
        _ => "is it for this kind of machine, and does the file system of paths.state let programs run (no `noexec`)?",
    }
}

async fn start_unit(host: &Host, paths: &PathsConfig, unit: &str, before: Option<u32>, launch: &Launch) -> Result<u32> {
    let (host, paths, unit, launch) = (host.clone(), paths.clone(), unit.to_owned(), launch.clone());
    tokio::task::spawn_blocking(move || unit::start(&host, &paths, &unit, before, &launch)).await?
}
