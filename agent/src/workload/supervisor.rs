//! The container's supervision: brought up, watched, replaced, removed in the end.

mod bring_up;
mod replace;

use std::future::pending;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::dead::dead;
use super::draining::{Draining, until_drain};
use super::engine::{Container, Engine, WaitEnd, short_id};
use super::gate::Gate;
use super::names::names_of;
use super::options::Options;
use super::secrets;
use crate::config::Network;
use crate::facts::{ContainerState, EnvoyState, HostEvent, InterceptState, LivenessState, Successor, XdsState};
use crate::supervise::{Backoff, Scope};
use replace::Rejected;

/// The warning about a container that an earlier version of the agent made, and that runs on.
const OUTDATED_WARNING: &str = "an earlier version made it, with more rights than a container is given now: it runs on, \
                                and is made anew at its next start, at the latest by `systemctl stop` and `start` of \
                                the agent";

/// Time for dockerd to say whether a container that has failed is there.
const GONE_WITHIN: Duration = Duration::from_secs(3);
/// The time after which a container that dies is started again at once, as if for the first time.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Time between two looks at a container that runs.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Longest time between two tries to have the wanted container take over from one that runs.
const RETRY_WITHIN: Duration = Duration::from_secs(300);

/// The facts that the container follows.
#[derive(Debug)]
pub struct Inputs {
    /// Envoy, which the container is started behind.
    pub envoy: watch::Receiver<EnvoyState>,
    /// The rules; `None` when the agent redirects nothing.
    pub intercept: Option<watch::Receiver<InterceptState>>,
    /// The endpoints that this VM is among.
    pub xds: watch::Receiver<XdsState>,
    /// The life of the application.
    pub liveness: watch::Receiver<LivenessState>,
    /// The address at which Envoy calls the container; `None` when none of its ports is published.
    pub called_at: Option<watch::Receiver<Option<IpAddr>>>,
}

/// Keeps the container running until the drain, then stops and removes it.
///
/// The container is started only after Envoy was ready once and while the rules are in, so that nobody can call it around
/// Envoy. One that runs already is left alone.
///
/// The task is ready as soon as it knows what it is at: a pull may take minutes, and a registry that is away
/// must not keep the rest of the agent from starting. The state that is published says whether the container runs.
pub async fn run(scope: Scope, options: Options, inputs: Inputs, publish: watch::Sender<ContainerState>) -> Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut supervisor = ContainerSupervisor {
        options,
        gate: Gate::new(inputs.envoy, inputs.intercept),
        xds: inputs.xds,
        liveness: inputs.liveness,
        called_at: inputs.called_at,
        publish,
        has_run: false,
        restarts: AtomicU32::new(0),
        exposed: Vec::new(),
        successor: None,
        rejected: None,
        retry: Backoff::new(Duration::from_secs(5), RETRY_WITHIN),
        scope: scope.clone(),
    };
    loop {
        let began = Instant::now();
        let error = match supervisor.run_once().await {
            Ok(End::Retry) => continue,
            Ok(End::Ended(end)) => end,
            Err(error) if error.is::<Draining>() => break,
            Err(error) => error,
        };
        if began.elapsed() >= STEADY_AFTER {
            backoff.reset();
        }
        // A dockerd that hangs tells nothing, and holds up neither the word of it nor a stop.
        let Ok(gone) = until_drain(&scope, timeout(GONE_WITHIN, supervisor.is_gone())).await else {
            break;
        };
        supervisor.publish_state(ContainerState::Failed {
            error: format!("{error:#}"),
            gone: gone.unwrap_or(false),
        });
        if until_drain(&scope, backoff.wait()).await.is_err() {
            break;
        }
    }
    supervisor.remove().await
}

struct ContainerSupervisor {
    options: Options,
    gate: Gate,
    xds: watch::Receiver<XdsState>,
    liveness: watch::Receiver<LivenessState>,
    called_at: Option<watch::Receiver<Option<IpAddr>>>,
    publish: watch::Sender<ContainerState>,
    /// True once the container ran under this agent.
    has_run: bool,
    /// The number of times that it was started again, also while another one is to take over.
    restarts: AtomicU32,
    /// The TCP ports that the image says it listens on.
    exposed: Vec<u16>,
    /// The container that is wanted, while another one runs.
    successor: Option<Successor>,
    /// The specification that was tried and is not tried again.
    rejected: Option<Rejected>,
    /// Waits between tries to have the wanted container take over.
    retry: Backoff,
    scope: Scope,
}

/// A container that runs.
struct Up {
    id: String,
    /// Time until the wanted one is tried again, where it is another; `None`: never.
    retry: Option<Duration>,
}

/// The end of a container that ran.
enum Gone {
    /// The container ended, or was lost sight of.
    Ended(Result<WaitEnd>),
    /// A probe found it dead.
    Dead(String),
}

/// End of a run.
enum End {
    /// The container did.
    Ended(anyhow::Error),
    /// The container runs, and is not the wanted one: that is tried again.
    Retry,
}

impl ContainerSupervisor {
    /// Brings the container up and watches it.
    async fn run_once(&mut self) -> Result<End> {
        let engine = Engine::connect(&self.options.config.docker_socket).await?;
        engine
            .expect_callable([self.options.config.network].into_iter())
            .await?;
        let up = Box::pin(self.bring_up(&engine)).await?;
        self.has_run = true;
        // Of no use but for a warning, and no reason to say that it doesn't run.
        self.exposed = engine
            .exposed_ports(&self.options.config.image)
            .await
            .unwrap_or_default();
        let liveness = self.liveness_from_now();
        self.publish_running(&engine, &up.id).await?;
        if self.successor.is_none() {
            self.remove_others(&engine, &up.id).await?;
            self.prune(&engine).await;
        }
        let scope = self.scope.clone();
        let gone = async {
            tokio::select! {
                biased;
                gone = self.observe(&engine, &up.id, liveness) => Some(gone),
                () = sleep(up.retry.unwrap_or_default()), if up.retry.is_some() => None,
            }
        };
        match until_drain(&scope, Box::pin(gone)).await? {
            Some(Gone::Ended(ended)) => Ok(End::Ended(self.end(&engine, &up.id, ended).await?)),
            Some(Gone::Dead(reason)) => Ok(End::Ended(self.stop_dead(&engine, &up.id, &reason).await?)),
            None => Ok(End::Retry),
        }
    }

    /// True where Docker says that no container of the application's names runs; false where it doesn't say.
    async fn is_gone(&self) -> bool {
        let config = &self.options.config;
        let Ok(engine) = Engine::connect(&config.docker_socket).await else {
            return false;
        };
        let runs = names_of(&config.name).map(async |name| engine.find(&name).await);
        let found = join_all(runs).await;
        found.iter().all(|found| match found {
            Ok(container) => container.as_ref().is_none_or(|it| !it.running),
            Err(_) => false,
        })
    }

    /// Removes earlier images as the operator wants it; what isn't removed now is at the next start.
    async fn prune(&self, engine: &Engine) {
        let config = &self.options.config;
        let Some(keep) = config.keep_images else { return };
        match engine.prune(&config.image, keep).await {
            Ok(gone) if gone.is_empty() => {}
            Ok(gone) => tracing::info!(
                images = gone.join(" "),
                "removed earlier images of the container's repository"
            ),
            Err(error) => tracing::warn!("earlier images of {} stay: {error:#}", config.image),
        }
    }

    /// Waits for a running container's end, or for a probe that finds it dead, and tells how it is meanwhile.
    async fn observe(&self, engine: &Engine, id: &str, liveness: watch::Receiver<LivenessState>) -> Gone {
        let looks = async {
            loop {
                sleep(LOOK_AGAIN).await;
                // A dockerd that doesn't answer ends the wait as well, with its own words.
                if let Err(error) = self.look_again(engine, id).await {
                    tracing::debug!("{error:#}");
                }
            }
        };
        tokio::select! {
            biased;
            gone = gone(engine, id, liveness) => gone,
            () = looks => pending().await,
        }
    }

    /// State by the probes from now on: what they said before is of the container before.
    fn liveness_from_now(&self) -> watch::Receiver<LivenessState> {
        let mut liveness = self.liveness.clone();
        liveness.mark_unchanged();
        liveness
    }

    /// Stops a container that a probe found dead; what became of it, in words.
    async fn stop_dead(&self, engine: &Engine, id: &str, reason: &str) -> Result<anyhow::Error> {
        let name = &self.options.config.name;
        tracing::warn!(container = name, id = short_id(id), "stopping the container: {reason}");
        if let Some(container) = engine.find(id).await? {
            engine.stop(&container, self.options.config.stop_timeout).await?;
        }
        Ok(anyhow!(
            "the container {name} was stopped, to be started again: {reason}"
        ))
    }

    /// The container's end in words.
    async fn end(&self, engine: &Engine, id: &str, ended: Result<WaitEnd>) -> Result<anyhow::Error> {
        let (name, socket) = (&self.options.config.name, &self.options.config.docker_socket);
        let ended = ended
            .with_context(|| format!("lost sight of the container {name}: dockerd at {socket} ended the connection"))?;
        let end = match (&ended, engine.find(id).await) {
            (WaitEnd::Exited(_), Ok(Some(container))) => container.end,
            _ => ended.to_string(),
        };
        Ok(anyhow!("the container {name} {end} (see `docker logs {name}`)"))
    }

    /// Publishes a container that runs, and what is known of the one that is to take over.
    async fn publish_running(&self, engine: &Engine, id: &str) -> Result<()> {
        self.publish_beside(engine, id, self.successor.clone()).await
    }

    /// Publishes anew how a container that runs is; what was said of the one that is to take over stands.
    async fn look_again(&self, engine: &Engine, id: &str) -> Result<()> {
        let successor = self.publish.borrow().successor().cloned();
        self.publish_beside(engine, id, successor).await
    }

    async fn publish_beside(&self, engine: &Engine, id: &str, successor: Option<Successor>) -> Result<()> {
        let Some(found) = engine.find(id).await?.filter(|found| found.running) else {
            // Its end is told by whoever waits for it.
            return Ok(());
        };
        self.publish_state(ContainerState::Running {
            id: short_id(id).to_owned(),
            restarts: self.restarts.load(Ordering::Relaxed),
            outdated: !found.up_to_date,
            address: found.address,
            trouble: found.trouble().or_else(|| self.off_the_bridge(&found)),
            exposed: self.exposed.clone(),
            healthcheck: found.healthcheck(),
            successor,
        });
        Ok(())
    }

    /// The reason why Envoy can't call a container that somebody has taken off Docker's bridge.
    fn off_the_bridge(&self, found: &Container) -> Option<String> {
        let is_off = self.options.config.network == Network::Bridge && found.address.is_none();
        is_off.then(|| {
            let name = &found.name;
            format!("it has no address on Docker's bridge: `docker network connect bridge {name}` gives it one")
        })
    }

    /// Stops and removes the containers of the configured name that are the agent's, and then their secrets, which an
    /// application may read until its end.
    async fn remove(&self) -> Result<()> {
        let removed = self.remove_containers().await;
        let Options {
            host, paths, workload, ..
        } = &self.options;
        let forgotten = secrets::remove(host, paths, workload);
        removed.and(forgotten)
    }

    async fn remove_containers(&self) -> Result<()> {
        let config = &self.options.config;
        let engine = Engine::connect(&config.docker_socket).await?;
        let remove = async |name: String| {
            let found = engine.find(&name).await?;
            if let Some(container) = found.filter(|container| container.spec.is_some()) {
                engine.stop(&container, config.stop_timeout).await?;
                engine.remove(&container).await?;
                tracing::info!(container = container.name, "stopped and removed the container");
            }
            Ok(())
        };
        // Beside each other: all have the whole time to end, and the agent's stop has it once.
        let removed = join_all(names_of(&config.name).map(|name| Box::pin(remove(name)))).await;
        removed.into_iter().collect()
    }

    fn publish_state(&self, state: ContainerState) {
        let container = self.options.config.name.as_str();
        let changed = self.publish.send_if_modified(|old| {
            let changed = *old != state;
            old.clone_from(&state);
            changed
        });
        if changed {
            tell(container, &state);
        }
        self.scope.ready();
    }
}

/// Waits for a running container's end, or for a probe that finds it dead.
async fn gone(engine: &Engine, id: &str, mut liveness: watch::Receiver<LivenessState>) -> Gone {
    tokio::select! {
        biased;
        ended = engine.ended(id) => Gone::Ended(ended),
        reason = dead(&mut liveness) => Gone::Dead(reason),
    }
}

fn tell(container: &str, state: &ContainerState) {
    match state {
        ContainerState::NotConfigured => {}
        ContainerState::Waiting { reason } => tracing::info!(container, reason, "the container is not started yet"),
        ContainerState::Leaving { id } => tracing::info!(container, id, "sending callers elsewhere: it is replaced"),
        ContainerState::Running {
            id,
            restarts,
            outdated,
            successor,
            trouble,
            ..
        } => {
            match successor.as_ref().and_then(|next| next.lacks.as_ref()) {
                Some(reason) => tracing::info!(container, id, "another container is to take over: {reason}"),
                None => tracing::info!(container, id, restarts, "the container runs"),
            }
            if let Some(reason) = trouble {
                tracing::warn!(container, id, "the container serves nobody: {reason}");
            }
            if *outdated {
                tracing::warn!(container, id, "{OUTDATED_WARNING}");
            }
            if let Some(reason) = successor.as_ref().and_then(|successor| successor.failed.as_ref()) {
                tracing::warn!(container, id, "the configured container does not take over: {reason}");
            }
        }
        ContainerState::Failed { error, .. } => {
            tracing::warn!(code = HostEvent::ContainerDown.code(), container, "{error}");
        }
    }
}
