//! Asks whether the application has started, and then whether it lives, and publishes `LivenessState`. Who runs it
//! starts it again.
//!
//! It is asked where it is: a container at its own address, anything else on the VM, so that neither Envoy nor the rules
//! have a say in its death.

use std::convert::Infallible;
use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::probe::Streak;
use crate::config::PortMapping;
use crate::facts::{ContainerState, LivenessState, Membership, Probe, ProbeState, ServiceState};
use crate::probing::{self, Place};
use crate::supervise::Scope;

/// The probes, and what they need to find the application.
#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) startup: Option<Probe>,
    pub(super) liveness: Option<Probe>,
    /// Ports of the VM, by which a probe names those of the container.
    pub(super) ports: Vec<PortMapping>,
    /// The agent's own systemd unit, with which the units of commands end.
    pub(super) unit: Option<String>,
}

/// The facts by which one start of the application is told from the next.
#[derive(Debug)]
pub(super) struct Application {
    pub(super) container: watch::Receiver<ContainerState>,
    pub(super) service: watch::Receiver<ServiceState>,
}

/// The application as it was started one time.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Instance {
    /// Id of the container, or name of the unit.
    name: String,
    /// Restarts of the container, or process of the unit.
    number: u32,
    /// Address of a container on Docker's bridge.
    address: Option<IpAddr>,
}

/// Asks until the drain.
pub(super) async fn run(
    scope: Scope,
    options: Options,
    mut application: Application,
    membership: watch::Receiver<Arc<Membership>>,
    publish: watch::Sender<LivenessState>,
) -> Result<()> {
    let asker = Asker {
        options,
        membership,
        publish,
    };
    scope.ready();
    let judged = async {
        loop {
            let instance = application.until(|now| now).await;
            let gone = application.until(|now| (now.as_ref() != Some(&instance)).then_some(()));
            tokio::select! {
                never = asker.judge(&instance) => match never {},
                () = gone => {}
            }
        }
    };
    tokio::select! {
        biased;
        () = scope.draining() => Ok(()),
        () = judged => Ok(()),
    }
}

impl Application {
    /// Waits until what runs is as wanted.
    async fn until<T>(&mut self, wanted: impl Fn(Option<Instance>) -> Option<T>) -> T {
        loop {
            let now = instance(&self.container.borrow_and_update(), &self.service.borrow_and_update());
            if let Some(found) = wanted(now) {
                return found;
            }
            let changed = tokio::select! {
                changed = self.container.changed() => changed,
                changed = self.service.changed() => changed,
            };
            if changed.is_err() {
                // A publisher is gone, and so is the agent soon.
                return pending().await;
            }
        }
    }
}

fn instance(container: &ContainerState, service: &ServiceState) -> Option<Instance> {
    match (container, service) {
        (
            ContainerState::Running {
                id, restarts, address, ..
            },
            _,
        ) => Some(Instance {
            name: id.clone(),
            number: *restarts,
            address: *address,
        }),
        (_, ServiceState::Running { unit, pid, .. }) => Some(Instance {
            name: unit.clone(),
            number: *pid,
            address: None,
        }),
        _ => None,
    }
}

struct Asker {
    options: Options,
    membership: watch::Receiver<Arc<Membership>>,
    publish: watch::Sender<LivenessState>,
}

impl Asker {
    async fn judge(&self, instance: &Instance) -> Infallible {
        // One that took over was well before, and is not taken for one that starts.
        if let Some(startup) = &self.options.startup
            && self.ask(startup, instance).await.is_err()
        {
            self.tell(LivenessState::Starting);
            sleep(startup.initial_delay).await;
            self.follow(startup, "startup", instance).await;
        }
        self.tell(LivenessState::Alive);
        let Some(liveness) = &self.options.liveness else {
            return pending().await;
        };
        sleep(liveness.initial_delay).await;
        loop {
            self.follow(liveness, "liveness", instance).await;
            self.tell(LivenessState::Alive);
            sleep(liveness.period).await;
        }
    }

    /// Asks until the probe succeeds; each time that it fails for good is told.
    async fn follow(&self, probe: &Probe, name: &str, instance: &Instance) {
        let mut streak = Streak::new(probe);
        loop {
            let began = Instant::now();
            match streak.observe(self.ask(probe, instance).await) {
                Some(ProbeState::Unhealthy { reason }) => {
                    let reason = format!("the {name} probe fails: {reason}");
                    tracing::warn!("{reason}");
                    self.publish.send_replace(LivenessState::Failed { reason });
                    streak = Streak::new(probe);
                }
                Some(_) => return,
                None => {}
            }
            sleep_until(began + probe.period).await;
        }
    }

    /// One probe; the error is the reason.
    async fn ask(&self, probe: &Probe, instance: &Instance) -> Result<(), String> {
        let unit = self.options.unit.as_deref();
        match instance.address {
            Some(address) => {
                let probe = probing::of_container(probe, &self.options.ports);
                probing::ask(&probe, Place::Container(address), unit).await
            }
            None => {
                let address = self.membership.borrow().instance_ips.first().copied();
                probing::ask(probe, Place::Vm(address), unit).await
            }
        }
    }

    fn tell(&self, state: LivenessState) {
        self.publish.send_if_modified(|old| {
            let changed = *old != state;
            *old = state;
            changed
        });
    }
}

#[cfg(test)]
mod tests;
