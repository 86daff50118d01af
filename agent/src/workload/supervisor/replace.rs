//! Another container in the place of one that runs, without a call lost.
//!
//! The next one has a name of its own until the former is gone, by which an agent that comes in the middle goes on. Where
//! both can run, calls move once the next one is well; else callers are sent elsewhere before the former is stopped. A next
//! one that is never well is taken away, and the former serves on: that specification is tried again by another agent
//! only, after a reload or a restart. Where that would cost calls each time, the container that was not well is kept,
//! stopped, as `NAME-rejected`, and no agent tries its specification again while it is there.

use std::convert::Infallible;
use std::future::pending;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Error, Result, anyhow, bail};
use tokio::time::{sleep, timeout};

use super::{ContainerSupervisor, Gone, gone};
use crate::facts::ContainerState;
use crate::workload::draining::{Draining, until_drain};
use crate::workload::engine::{Container, Engine, short_id};
use crate::workload::names::{next_name, rejected_name};
use crate::workload::spec;
use crate::workload::wanted::Wanted;

/// Time in which Envoy has read where the container is: it watches the file.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// Time in which each of Envoy's threads has heard of it, and made the connections that it was about to.
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

fn again_hint(name: &str) -> String {
    format!("see `docker logs {name}`; once that is removed (`docker rm {name}`), a reload has it tried again")
}

impl ContainerSupervisor {
    /// Starts the container that serves again whenever it ends or its probe finds it dead, and tells how it is meanwhile: until
    /// the next one is well there is no other.
    pub(super) async fn keep(&self, engine: &Engine, former: Option<&Container>) -> Infallible {
        let Some(former) = former else { return pending().await };
        loop {
            let gone = self.observe(engine, &former.id, self.liveness_from_now()).await;
            if let Err(error) = self.start_again(engine, former, gone).await {
                tracing::warn!("{error:#}");
            }
            sleep(AGAIN_AFTER).await;
        }
    }

    async fn start_again(&self, engine: &Engine, former: &Container, gone: Gone) -> Result<()> {
        match gone {
            Gone::Ended(Ok(ended)) => tracing::warn!(
                container = former.name,
                "{ended} while another one is to take over: starting it again"
            ),
            // dockerd is away: whether it runs isn't known.
            Gone::Ended(Err(_)) => return Ok(()),
            Gone::Dead(reason) => drop(self.stop_dead(engine, &former.id, &reason).await?),
        }
        engine.start(&former.id, &former.name).await?;
        // For its probes it is another one; and it may have another address.
        self.restarts.fetch_add(1, Ordering::Relaxed);
        self.look_again(engine, &former.id).await
    }

    /// The refusal of the wanted specification, by this agent or by an earlier one.
    pub(super) async fn rejection(&self, engine: &Engine, wanted: &Wanted) -> Result<Option<Rejected>> {
        if let Some(rejected) = self.rejected.as_ref().filter(|rejected| rejected.is_of(wanted)) {
            return Ok(Some(rejected.clone()));
        }
        let name = rejected_name(&wanted.config.name);
        let spec = spec::hash(&wanted.config);
        let kept = engine.find(&name).await?;
        let is_of = kept.is_some_and(|kept| kept.spec.as_ref() == Some(&spec));
        Ok(is_of.then(|| Rejected {
            spec,
            reason: format!("{} was not well: {}", wanted.config.image, again_hint(&name)),
        }))
    }

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
        self.successor().lacks = Some("it is not well yet".to_owned());
        self.publish_running(engine, &former.id).await?;
        let next = self.next(engine, wanted).await?;
        if !is_beside {
            self.leave(engine, &former).await?;
            engine.stop(&former, config.stop_timeout).await?;
        }
        let serves = async {
            self.start(engine, &next).await?;
            let well = async {
                tokio::select! {
                    well = self.options.judge.wait(engine, &next, config) => well,
                    never = self.keep(engine, Some(&former)), if is_beside => match never {},
                }
            };
            until_drain(&self.scope, Box::pin(well)).await??;
            match is_beside {
                true => self.move_calls(engine, &next).await,
                false => Ok(()),
            }
        };
        match serves.await {
            Ok(()) => {}
            Err(error) if error.is::<Draining>() => return Err(error),
            Err(error) => return Err(self.roll_back(engine, &former, wanted, &error).await?),
        }
        if is_beside {
            engine.stop(&former, config.stop_timeout).await?;
        }
        engine.remove(&former).await?;
        self.finish(engine).await?;
        self.remove_others(engine, &next).await?;
        Ok(next)
    }

    /// Has Envoy call the next container. Fails when that ends before all calls have moved.
    async fn move_calls(&self, engine: &Engine, next: &str) -> Result<()> {
        self.publish_running(engine, next).await?;
        let moved = async {
            tokio::select! {
                Ok(ended) = engine.ended(next) => Err(anyhow!("it {ended} as calls moved to it")),
                () = self.until_moved() => Ok(()),
            }
        };
        until_drain(&self.scope, moved).await?
    }

    /// Completes once Envoy makes its connections to the container that is published.
    async fn until_moved(&self) {
        let address = match &*self.publish.borrow() {
            ContainerState::Running { address, .. } => *address,
            _ => None,
        };
        if let Some(mut called_at) = self.called_at.clone() {
            let read = timeout(READ_WITHIN, called_at.wait_for(|called| *called == address)).await;
            if !matches!(read, Ok(Ok(_))) {
                tracing::warn!(
                    "Envoy has not said that it calls the next container: calls may fail as the former one ends"
                );
            }
        }
        sleep(MOVED_WITHIN).await;
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
        let next = engine.find(&next_name(&config.name)).await?;
        if let Some(next) = &next {
            engine.stop(next, config.stop_timeout).await?;
        }
        if engine.find(&former.id).await?.is_some_and(|former| !former.running) {
            engine.start(&former.id, &former.name).await?;
        }
        let mut reason = format!("{} was not well: {error:#}", config.image);
        if let Some(next) = next {
            match self.options.runs_beside(former) {
                true => engine.remove(&next).await?,
                false => {
                    let name = rejected_name(&config.name);
                    self.set_aside(engine, &next, &name).await?;
                    reason = format!("{reason}; {}", again_hint(&name));
                }
            }
        }
        let rejected = Rejected {
            spec: spec::hash(config),
            reason,
        };
        self.rejected = Some(rejected.clone());
        Ok(anyhow!(rejected))
    }

    /// Keeps a container that was not well in the place of an earlier one.
    async fn set_aside(&self, engine: &Engine, next: &Container, name: &str) -> Result<()> {
        if let Some(earlier) = engine.find(name).await?.filter(Container::is_workload) {
            engine.remove(&earlier).await?;
        }
        engine.rename(next, name).await
    }

    /// Has callers go elsewhere while `former` serves on. Once it doesn't, every moment until the next one serves is lost.
    async fn leave(&self, engine: &Engine, former: &Container) -> Result<(), Draining> {
        let gone = async {
            match gone(engine, &former.id, self.liveness_from_now()).await {
                Gone::Ended(Ok(ended)) => ended.to_string(),
                Gone::Dead(reason) => format!("is dead: {reason}"),
                // dockerd is away: whether it runs isn't known.
                Gone::Ended(Err(_)) => pending().await,
            }
        };
        tokio::select! {
            biased;
            left = self.send_callers_elsewhere(former) => left,
            gone = gone => {
                let container = &former.name;
                tracing::warn!(container, "the container {gone} before its callers have gone elsewhere: replacing it now");
                Ok(())
            }
        }
    }

    /// Completes once no proxy calls this VM. Where istiod takes no word on its health there is no way.
    async fn send_callers_elsewhere(&self, former: &Container) -> Result<(), Draining> {
        let Some(propagation) = self.options.propagation else {
            tracing::warn!("no probe is configured, so istiod takes no word on this VM's health: calls fail meanwhile");
            return Ok(());
        };
        let (mut xds, mut endpoints) = (self.xds.clone(), self.xds.clone());
        let listed = timeout(TOLD_WITHIN, xds.wait_for(|xds| !xds.listed_in.is_empty()));
        let is_listed = matches!(until_drain(&self.scope, listed).await?, Ok(Ok(_)));
        self.publish_state(ContainerState::Leaving {
            id: short_id(&former.id).to_owned(),
        });
        let taken_out = timeout(TOLD_WITHIN, endpoints.wait_for(|xds| xds.listed_in.is_empty()));
        let is_taken_out = matches!(until_drain(&self.scope, taken_out).await?, Ok(Ok(_)));
        if is_listed && !is_taken_out {
            tracing::warn!("istiod still sends calls to this VM: those of the next moment may fail");
        }
        until_drain(&self.scope, sleep(propagation)).await
    }
}
