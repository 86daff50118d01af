//! The container made to run: the wanted one, or the one before it while that can't.

use std::sync::atomic::Ordering;
use std::time::SystemTime;

use anyhow::Result;

use super::replace::Rejected;
use super::{ContainerSupervisor, Up};
use crate::config::Network;
use crate::docker::Progress;
use crate::facts::{ContainerState, Successor};
use crate::workload::draining::{Draining, until_drain};
use crate::workload::engine::{Container, Engine, short_id};
use crate::workload::names::next_name;
use crate::workload::user;
use crate::workload::wanted::Wanted;

impl ContainerSupervisor {
    /// Makes the wanted container run. Where that fails, one of the same name runs on.
    pub(super) async fn bring_up(&mut self, engine: &Engine) -> Result<Up> {
        let error = match self.bring_up_wanted(engine).await {
            Ok(id) => {
                self.successor = None;
                self.retry.reset();
                return Ok(Up { id, retry: None });
            }
            Err(error) if error.is::<Draining>() => return Err(error),
            Err(error) => error,
        };
        let is_rejected = error.is::<Rejected>();
        match self.former(engine, is_rejected).await? {
            Some(id) => {
                let successor = self.successor();
                successor.failed = Some(format!("{error:#}"));
                successor.lacks = None;
                Ok(Up {
                    id,
                    retry: (!is_rejected).then(|| self.retry.next_wait()),
                })
            }
            None => Err(error),
        }
    }

    /// The container that is wanted in the place of the one that runs.
    pub(super) fn successor(&mut self) -> &mut Successor {
        self.successor.get_or_insert_with(|| Successor {
            since: SystemTime::now(),
            failed: None,
            lacks: None,
        })
    }

    /// The agent's container of the configured name that runs, whatever its specification; one that was rolled back to
    /// is started again.
    async fn former(&mut self, engine: &Engine, is_rolled_back: bool) -> Result<Option<String>> {
        let name = self.options.config.name.clone();
        let former = engine.find(&name).await?.filter(Container::is_workload);
        match former {
            Some(former) if !former.running && is_rolled_back => {
                self.wait_until_allowed(engine, None).await?;
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
                self.wait_until_allowed(engine, None).await?;
                self.remove_others(engine, &container.id).await?;
                self.start(engine, &container.id).await?;
            }
            return Ok(container.id);
        }
        let former = engine.find(name).await?.filter(Container::is_workload);
        if former.is_some()
            && let Some(rejected) = self.rejection(engine, &wanted).await?
        {
            return Err(rejected.into());
        }
        let running = former.filter(|former| former.running);
        if let Some(running) = &running {
            self.successor().lacks = Some("it is not here yet".to_owned());
            self.publish_running(engine, &running.id).await?;
        }
        self.fetch_image(engine, running.as_ref()).await?;
        self.wait_until_allowed(engine, running.as_ref()).await?;
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
    pub(super) async fn start(&self, engine: &Engine, id: &str) -> Result<()> {
        let config = &self.options.config;
        if config.network == Network::Host {
            user::expect_other_than_envoy(engine, id).await?;
        }
        engine.start(id, &config.name).await?;
        self.restarts.fetch_add(u32::from(self.has_run), Ordering::Relaxed);
        Ok(())
    }

    /// Stops and removes all containers of the agent's but one, and those of the other applications.
    pub(super) async fn remove_others(&self, engine: &Engine, kept: &str) -> Result<()> {
        let others = &self.options.others;
        let _removing = others.wait().await;
        let is_old = |it: &Container| it.is_workload() && it.id != kept && !others.have(&it.name);
        for other in engine.ours().await?.into_iter().filter(is_old) {
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
    ///
    /// `former`, which serves meanwhile, is kept going.
    async fn fetch_image(&mut self, engine: &Engine, former: Option<&Container>) -> Result<()> {
        if engine.has_image(&self.options.config.image).await? {
            return Ok(());
        }
        if former.is_some() {
            self.wait_until_allowed(engine, former).await?;
        }
        let image = &self.options.config.image;
        self.publish_waiting(format!("pulling {image}"));
        let tell = |Progress { here, all }: Progress| {
            let (here, all) = (here / 1_000_000, all / 1_000_000);
            self.publish_waiting(format!("pulling {image}: {here} of {all} MB"));
        };
        let registries = self.options.registries();
        let pulled = async {
            tokio::select! {
                pulled = engine.pull(image, &registries, tell) => pulled,
                never = self.keep(engine, former) => match never {},
            }
        };
        until_drain(&self.scope, Box::pin(pulled)).await?
    }

    /// Publishes what is waited for: by the container, or by the one that is to take over where one serves.
    fn publish_waiting(&self, reason: String) {
        let mut state = self.publish.borrow().clone();
        match &mut state {
            ContainerState::Running {
                successor: Some(next), ..
            } => next.lacks = Some(reason),
            _ => state = ContainerState::Waiting { reason },
        }
        self.publish_state(state);
    }

    /// Waits until a container may start. `former`, which serves meanwhile, is kept going.
    async fn wait_until_allowed(&mut self, engine: &Engine, former: Option<&Container>) -> Result<()> {
        while let Some(what) = self.gate.closed_by() {
            self.publish_waiting(format!("waits for {what}"));
            let mut gate = self.gate.clone();
            let changed = async {
                tokio::select! {
                    changed = gate.changed() => changed,
                    never = self.keep(engine, former) => match never {},
                }
            };
            until_drain(&self.scope, Box::pin(changed)).await??;
        }
        Ok(())
    }
}
