//! The container's supervision: brought up, watched, replaced, removed in the end.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::sync::watch;
use tokio::time::Instant;

use super::engine::{Container, Engine, WaitEnd, short_id};
use super::options::{Options, Wanted};
use super::{secrets, user};
use crate::config::{ContainerConfig, Network};
use crate::facts::{ContainerState, EnvoyState, InterceptState};
use crate::supervise::{Backoff, Scope};

/// The warning about a container that an earlier version of the agent made, and that runs on.
const OUTDATED_WARNING: &str = "an earlier version made it, with more rights than a container is given now: it runs on, \
                                and is made anew at its next start, at the latest by `systemctl stop` and `start` of \
                                the agent";

/// The time after which a container that dies is started again at once, as if for the first time.
const STEADY_AFTER: Duration = Duration::from_secs(10);

/// Keeps the container running until the drain, then stops and removes it.
///
/// The container is started only after Envoy was ready once and while the rules are in (`intercept`; `None` when the
/// agent redirects nothing), so that nobody can call it around Envoy. One that runs already is left alone.
///
/// The task is ready as soon as it knows what it is at: a pull may take minutes, and a registry that is away
/// must not keep the rest of the agent from starting. The state that is published says whether the container runs.
pub async fn run(
    scope: Scope,
    options: Options,
    envoy: watch::Receiver<EnvoyState>,
    intercept: Option<watch::Receiver<InterceptState>>,
    publish: watch::Sender<ContainerState>,
) -> Result<()> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(30));
    let mut supervisor = ContainerSupervisor {
        options,
        envoy: Some(envoy),
        intercept,
        publish,
        has_run: false,
        restarts: 0,
        scope: scope.clone(),
    };
    loop {
        let began = Instant::now();
        let error = match supervisor.run_once().await {
            Ok(end) => end,
            Err(error) if error.is::<Draining>() => break,
            Err(error) => error,
        };
        if began.elapsed() >= STEADY_AFTER {
            backoff.reset();
        }
        supervisor.publish_state(ContainerState::Failed {
            error: format!("{error:#}"),
        });
        if until_drain(&scope, backoff.wait()).await.is_err() {
            break;
        }
    }
    supervisor.remove().await
}

struct ContainerSupervisor {
    options: Options,
    /// Envoy's state; `None` once it was ready: an Envoy that dies later comes back behind rules that are still in.
    envoy: Option<watch::Receiver<EnvoyState>>,
    intercept: Option<watch::Receiver<InterceptState>>,
    publish: watch::Sender<ContainerState>,
    /// True once the container ran under this agent.
    has_run: bool,
    restarts: u32,
    scope: Scope,
}

/// The end of a run because the agent is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
struct Draining;

/// Waits until the agent is drained. For the long waits only: a call that changes something is always awaited, or the
/// drain could overtake a creation and miss the container.
async fn until_drain<T>(scope: &Scope, wait: impl Future<Output = T>) -> Result<T, Draining> {
    tokio::select! {
        biased;
        () = scope.draining() => Err(Draining),
        done = wait => Ok(done),
    }
}

impl ContainerSupervisor {
    /// Brings the container up, watches it, and returns how it ended.
    async fn run_once(&mut self) -> Result<anyhow::Error> {
        let ContainerConfig {
            name, docker_socket, ..
        } = self.options.config.clone();
        let engine = Engine::connect(&docker_socket).await?;
        let id = self.bring_up(&engine).await?;
        self.has_run = true;
        let found = engine.find(&id).await?;
        self.publish_state(ContainerState::Running {
            id: short_id(&id).to_owned(),
            restarts: self.restarts,
            outdated: found.as_ref().is_some_and(|container| !container.up_to_date),
            address: found.and_then(|container| container.address),
        });
        let ended = until_drain(&self.scope, engine.ended(&id)).await?.with_context(|| {
            format!("lost sight of the container {name}: dockerd at {docker_socket} ended the connection")
        })?;
        let end = match (&ended, engine.find(&id).await) {
            (WaitEnd::Exited(_), Ok(Some(container))) => container.end,
            _ => ended.to_string(),
        };
        Ok(anyhow::anyhow!("the container {name} {end} (see `docker logs {name}`)"))
    }

    /// Makes the container run and returns its id. An older one stays until the image of the new one is here.
    async fn bring_up(&mut self, engine: &Engine) -> Result<String> {
        let wanted = self.options.wanted()?;
        self.options.place_secrets()?;
        let config = &wanted.config;
        let configured = self.limited(engine, engine.configured(&wanted).await?, &wanted).await;
        if configured.is_none() {
            self.fetch_image(engine).await?;
        }
        if configured.as_ref().is_none_or(|container| !container.running) {
            self.wait_until_allowed().await?;
        }
        for old in engine.ours().await? {
            // Without a specification it is no workload's: Envoy is being copied out of it.
            let is_workload = old.spec.as_ref().is_some_and(|spec| !spec.is_empty());
            if is_workload && configured.as_ref().is_none_or(|configured| configured.id != old.id) {
                tracing::info!(
                    container = old.name,
                    id = short_id(&old.id),
                    "replacing a container of another specification, or of an earlier version's"
                );
                engine.stop(&old, config.stop_timeout).await?;
                engine.remove(&old).await?;
            }
        }
        let id = match configured {
            Some(container) if container.running => return Ok(container.id),
            Some(container) => container.id,
            None => engine.create(&config.name, &wanted).await?,
        };
        if config.network == Network::Host {
            user::expect_other_than_envoy(engine, &id).await?;
        }
        engine.start(&id, &config.name).await?;
        self.restarts += u32::from(self.has_run);
        Ok(id)
    }

    /// Gives the container the limits that are wanted; `None` when there has to be another one for that.
    async fn limited(&self, engine: &Engine, container: Option<Container>, wanted: &Wanted) -> Option<Container> {
        let container = container?;
        let Some(limits) = container.other_limits(wanted) else {
            return Some(container);
        };
        match engine.limit(&container, limits).await {
            Ok(()) => {
                tracing::info!(container = container.name, %limits, "changed the limits of the container");
                Some(container)
            }
            Err(error) => {
                tracing::warn!("{error:#}; it is replaced");
                None
            }
        }
    }

    /// Pulls the image when it isn't here. An image that is here is never asked for again: a tag that moved is the
    /// operator's to pull, and a digest can't move.
    async fn fetch_image(&self, engine: &Engine) -> Result<()> {
        let image = &self.options.config.image;
        if engine.has_image(image).await? {
            return Ok(());
        }
        self.publish_state(ContainerState::Waiting {
            reason: format!("pulling {image}"),
        });
        until_drain(&self.scope, engine.pull(image)).await?
    }

    /// Waits until a container may start.
    async fn wait_until_allowed(&mut self) -> Result<()> {
        if let Some(mut envoy) = self.envoy.clone() {
            if !envoy.borrow().is_ready() {
                self.wait_for("Envoy to be ready");
            }
            until_drain(&self.scope, envoy.wait_for(EnvoyState::is_ready))
                .await?
                .context("Envoy's task is gone")?;
            self.envoy = None;
        }
        if let Some(mut intercept) = self.intercept.clone() {
            if !is_guarded(&intercept.borrow()) {
                self.wait_for("the interception rules");
            }
            until_drain(&self.scope, intercept.wait_for(is_guarded))
                .await?
                .context("the interception's task is gone")?;
        }
        Ok(())
    }

    fn wait_for(&self, what: &str) {
        self.publish_state(ContainerState::Waiting {
            reason: format!("waits for {what}"),
        });
    }

    /// Stops and removes the container of the configured name, if it is the agent's.
    async fn remove(&self) -> Result<()> {
        secrets::remove(&self.options.host, &self.options.paths)?;
        let engine = Engine::connect(&self.options.config.docker_socket).await?;
        let Some(container) = engine.find(&self.options.config.name).await? else {
            return Ok(());
        };
        if container.spec.is_some() {
            engine.stop(&container, self.options.config.stop_timeout).await?;
            engine.remove(&container).await?;
            tracing::info!(container = container.name, "stopped and removed the container");
        }
        Ok(())
    }

    fn publish_state(&self, state: ContainerState) {
        let container = self.options.config.name.as_str();
        let changed = self.publish.send_if_modified(|old| {
            let changed = *old != state;
            old.clone_from(&state);
            changed
        });
        match &state {
            _ if !changed => {}
            ContainerState::NotConfigured => {}
            ContainerState::Waiting { reason } => tracing::info!(container, reason, "the container is not started yet"),
            ContainerState::Running {
                id, restarts, outdated, ..
            } => {
                tracing::info!(container, id, restarts, "the container runs");
                if *outdated {
                    tracing::warn!(container, id, "{OUTDATED_WARNING}");
                }
            }
            ContainerState::Failed { error } => tracing::warn!(container, "{error}"),
        }
        self.scope.ready();
    }
}

/// True when calls to the VM go through Envoy, or the operator wants them not to.
fn is_guarded(intercept: &InterceptState) -> bool {
    matches!(intercept, InterceptState::Active { .. } | InterceptState::Open { .. })
}
