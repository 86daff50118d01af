//! The container made to run: the wanted one, or the one before it while that can't.

use std::time::SystemTime;

use anyhow::{Context, Result};

use super::replace::{Rejected, next_name};
use super::{ContainerSupervisor, Draining, Up, until_drain};
use crate::config::Network;
use crate::docker::Progress;
use crate::facts::{ContainerState, EnvoyState, InterceptState};
use crate::workload::engine::{Container, Engine, short_id};
use crate::workload::options::Wanted;
use crate::workload::user;

impl ContainerSupervisor {
    /// Makes the wanted container run. Where that fails, one of the same name runs on.
    pub(super) async fn bring_up(&mut self, engine: &Engine) -> Result<Up> {
        let error = match self.bring_up_wanted(engine).await {
            Ok(id) => {
                self.wanted_since = None;
                self.retry.reset();
                return Ok(Up {
                    id,
                    failed: None,
                    retry: None,
                });
            }
            Err(error) if error.is::<Draining>() => return Err(error),
            Err(error) => error,
        };
        let is_rejected = error.is::<Rejected>();
        match self.former(engine, is_rejected).await? {
            Some(id) => {
                self.wanted_since.get_or_insert_with(SystemTime::now);
                Ok(Up {
                    id,
                    failed: Some(format!("{error:#}")),
                    retry: (!is_rejected).then(|| self.retry.next_wait()),
                })
            }
            None => Err(error),
        }
    }

    /// The agent's container of the configured name that runs, whatever its specification; one that was rolled back to
    /// is started again.
    async fn former(&mut self, engine: &Engine, is_rolled_back: bool) -> Result<Option<String>> {
        let name = self.options.config.name.clone();
        let former = engine.find(&name).await?.filter(Container::is_workload);
        match former {
            Some(former) if !former.running && is_rolled_back => {
                self.wait_until_allowed().await?;
                self.start(engine, &former.id).await?;
                Ok(Some(former.id))
            }
            former => Ok(former.filter(|former| former.running).map(|former| former.id)),
        }
    }

    /// Makes the wanted container run and returns its id. An older one stays until the image of the new one is here.
    async fn bring_up_wanted(&mut self, engine: &Engine) -> Result<String> {
        let wanted = self.options.wanted()?;
        let name = &wanted.config.name;
        self.options.place_secrets()?;
        self.finish(engine).await?;
        let configured = engine.configured(&wanted).await?;
        if let Some(container) = self.limited(engine, configured, &wanted).await {
            if !container.running {
                self.wait_until_allowed().await?;
            }
            self.remove_others(engine, &container.id).await?;
            if !container.running {
                self.start(engine, &container.id).await?;
            }
            return Ok(container.id);
        }
        if let Some(rejected) = self.rejected.as_ref().filter(|rejected| rejected.is_of(&wanted)) {
            return Err(rejected.clone().into());
        }
        self.fetch_image(engine).await?;
        self.wait_until_allowed().await?;
        let is_rolling = engine.find(&next_name(name)).await?.is_some();
        let former = engine.find(name).await?.filter(Container::is_workload);
        if let Some(former) = former.filter(|former| former.running || is_rolling) {
            return Box::pin(self.replace(engine, former, &wanted)).await;
        }
        self.remove_others(engine, "").await?;
        let id = engine.create(name, &wanted).await?;
        self.start(engine, &id).await?;
        Ok(id)
    }

    /// Starts a container that is there.
    pub(super) async fn start(&mut self, engine: &Engine, id: &str) -> Result<()> {
        let config = &self.options.config;
        if config.network == Network::Host {
            user::expect_other_than_envoy(engine, id).await?;
        }
        engine.start(id, &config.name).await?;
        self.restarts += u32::from(self.has_run);
        Ok(())
    }

    /// Stops and removes all containers of the agent's but one.
    pub(super) async fn remove_others(&self, engine: &Engine, kept: &str) -> Result<()> {
        let others = engine.ours().await?.into_iter();
        for other in others.filter(|other| other.is_workload() && other.id != kept) {
            tracing::info!(
                container = other.name,
                id = short_id(&other.id),
                "removing a container of another specification, or of an earlier version's"
            );
            engine.stop(&other, self.options.config.stop_timeout).await?;
            engine.remove(&other).await?;
        }
        Ok(())
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
        self.publish_pull(&format!("pulling {image}"));
        let tell = |Progress { here, all }: Progress| {
            self.publish_pull(&format!(
                "pulling {image}: {} of {} MB",
                here / 1_000_000,
                all / 1_000_000
            ));
        };
        let registries = self.options.registries();
        until_drain(&self.scope, engine.pull(image, &registries, tell)).await?
    }

    /// Publishes how far a pull is, unless another container serves meanwhile.
    fn publish_pull(&self, reason: &str) {
        if !matches!(*self.publish.borrow(), ContainerState::Running { .. }) {
            let reason = reason.to_owned();
            self.publish_state(ContainerState::Waiting { reason });
        }
    }

    /// Waits until a container may start.
    pub(super) async fn wait_until_allowed(&mut self) -> Result<()> {
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
}

/// True when calls to the VM go through Envoy, or the operator wants them not to.
fn is_guarded(intercept: &InterceptState) -> bool {
    matches!(intercept, InterceptState::Active { .. } | InterceptState::Open { .. })
}
