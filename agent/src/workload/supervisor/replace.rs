//! Another container in the place of one that runs, without a call lost.
//!
//! The next one has a name of its own until the former is gone, by which an agent that comes in the middle goes on. Where
//! both can run, calls move once the next one is well; else callers are sent elsewhere before the former is stopped. A next
//! one that is never well is taken away, and the former serves on: that specification is tried again by another agent
//! only, after a reload or a restart.

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use anyhow::{Error, Result, anyhow, bail};
use tokio::time::{sleep, timeout};

use super::{ContainerSupervisor, Draining, until_drain};
use crate::facts::ContainerState;
use crate::workload::engine::{Container, Engine, short_id};
use crate::workload::options::Wanted;
use crate::workload::spec;

/// Time in which Envoy has read where the container is: it watches the file.
const MOVED_WITHIN: Duration = Duration::from_secs(1);
/// Time in which an agent that began a moment ago learns of the endpoints, and istiod then takes an unhealthy VM out of
/// them (as in `xds::leave`).
const TOLD_WITHIN: Duration = Duration::from_secs(5);

/// Time after which a container that ends while another one is to take over is started once more.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The refusal of a specification whose container was never well.
#[derive(Clone, Debug, thiserror::Error)]
#[error("rolled back: {reason}")]
pub(super) struct Rejected {
    spec: String,
    reason: String,
}

impl Rejected {
    pub(super) fn is_of(&self, wanted: &Wanted) -> bool {
        self.spec == spec::hash(&wanted.config)
    }
}

/// Starts the container that serves again whenever it ends: until the next one is well there is no other.
async fn keep(engine: &Engine, former: &Container) -> Infallible {
    loop {
        if let Ok(ended) = engine.ended(&former.id).await {
            tracing::warn!(
                container = former.name,
                "{ended} while another one is to take over: starting it again"
            );
            if let Err(error) = engine.start(&former.id, &former.name).await {
                tracing::warn!("{error:#}");
            }
        }
        sleep(AGAIN_AFTER).await;
    }
}

/// The name of a container until the one before it is gone.
pub(super) fn next_name(name: &str) -> String {
    format!("{name}-next")
}

impl ContainerSupervisor {
    /// Ends a replacement that was cut short when the former container was gone and its name not given on.
    pub(super) async fn finish(&self, engine: &Engine) -> Result<()> {
        let name = &self.options.config.name;
        let next = engine.find(&next_name(name)).await?.filter(Container::is_workload);
        match next {
            Some(next) if engine.find(name).await?.is_none() => engine.rename(&next, name).await,
            _ => Ok(()),
        }
    }

    /// Replaces `former`; returns the id of the container in its place.
    pub(super) async fn replace(&mut self, engine: &Engine, former: Container, wanted: &Wanted) -> Result<String> {
        let config = &wanted.config;
        let is_beside = self.options.runs_beside(&former);
        tracing::info!(
            container = former.name,
            is_beside,
            "replacing a container of another specification"
        );
        self.wanted_since.get_or_insert_with(SystemTime::now);
        self.publish_running(engine, &former.id, None).await?;
        let next = self.next(engine, wanted).await?;
        if !is_beside {
            self.leave(&former).await?;
            engine.stop(&former, config.stop_timeout).await?;
        }
        let began = async {
            self.start(engine, &next).await?;
            let well = async {
                tokio::select! {
                    well = self.options.judge.wait(engine, &next, config) => well,
                    never = keep(engine, &former), if is_beside => match never {},
                }
            };
            until_drain(&self.scope, Box::pin(well)).await?
        };
        match began.await {
            Ok(()) => {}
            Err(error) if error.is::<Draining>() => return Err(error),
            Err(error) => return Err(self.roll_back(engine, &former, wanted, &error).await?),
        }
        if is_beside {
            self.publish_running(engine, &next, None).await?;
            let ends = async {
                sleep(MOVED_WITHIN).await;
                engine.stop(&former, config.stop_timeout).await
            };
            until_drain(&self.scope, ends).await??;
        }
        engine.remove(&former).await?;
        self.finish(engine).await?;
        self.remove_others(engine, &next).await?;
        Ok(next)
    }

    /// The id of the next container, which an agent before this one may have made.
    async fn next(&self, engine: &Engine, wanted: &Wanted) -> Result<String> {
        let name = next_name(&wanted.config.name);
        match engine.find(&name).await? {
            Some(found) if found.spec.is_none() => bail!(
                "the container {name} was not made by this agent, which needs the name for the one that takes over: rename it \
                 with `docker rename {name} …`, or remove it"
            ),
            Some(found) if found.running && found.can_be(wanted) => Ok(found.id),
            Some(found) => {
                engine.remove(&found).await?;
                engine.create(&name, wanted).await
            }
            None => engine.create(&name, wanted).await,
        }
    }

    /// Takes the next container away and has the former run; returns why.
    async fn roll_back(
        &mut self,
        engine: &Engine,
        former: &Container,
        wanted: &Wanted,
        error: &Error,
    ) -> Result<Error> {
        let config = &wanted.config;
        if let Some(next) = engine.find(&next_name(&config.name)).await? {
            engine.stop(&next, config.stop_timeout).await?;
            engine.remove(&next).await?;
        }
        if engine.find(&former.id).await?.is_some_and(|former| !former.running) {
            engine.start(&former.id, &former.name).await?;
        }
        let rejected = Rejected {
            spec: spec::hash(config),
            reason: format!("{} was not well: {error:#}", config.image),
        };
        self.rejected = Some(rejected.clone());
        Ok(anyhow!(rejected))
    }

    /// Has callers go elsewhere while `former` serves on. Where istiod takes no word on this VM's health there is no way.
    async fn leave(&mut self, former: &Container) -> Result<(), Draining> {
        let Some(propagation) = self.options.propagation else {
            tracing::warn!("no probe is configured, so istiod takes no word on this VM's health: calls fail meanwhile");
            return Ok(());
        };
        let listed = timeout(TOLD_WITHIN, self.xds.wait_for(|xds| !xds.listed_in.is_empty()));
        let is_listed = matches!(until_drain(&self.scope, listed).await?, Ok(Ok(_)));
        self.publish_state(ContainerState::Leaving {
            id: short_id(&former.id).to_owned(),
        });
        let taken_out = timeout(TOLD_WITHIN, self.xds.wait_for(|xds| xds.listed_in.is_empty()));
        let is_taken_out = matches!(until_drain(&self.scope, taken_out).await?, Ok(Ok(_)));
        if is_listed && !is_taken_out {
            tracing::warn!("istiod still sends calls to this VM: those of the next moment may fail");
        }
        until_drain(&self.scope, sleep(propagation)).await
    }
}
