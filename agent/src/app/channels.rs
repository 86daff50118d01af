//! Every fact's channel. One publisher each, named in `facts`.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;

use super::front::Shared;
use crate::bounds::Refusals;
use crate::config::Config;
use crate::control_plane::Choice;
use crate::facts::{
    ContainerState, Credentials, EnvoyState, Health, InterceptState, Membership, NameTable, ProbeState, XdsState,
};
use crate::status::{Agent, IdentityStatus, Status};
use crate::supervise::Clock;

#[derive(Clone, Debug)]
pub(super) struct Channels {
    pub(super) membership: watch::Sender<Arc<Membership>>,
    /// Which istiod is in use.
    pub(super) choice: Choice,
    pub(super) credentials: watch::Sender<Option<Arc<Credentials>>>,
    /// Why there is no new certificate while one is due.
    pub(super) identity_problem: watch::Sender<Option<String>>,
    /// Why the membership may be old.
    pub(super) join_problem: watch::Sender<Option<String>>,
    pub(super) names: watch::Sender<Option<Arc<NameTable>>>,
    pub(super) xds: watch::Sender<XdsState>,
    pub(super) envoy: watch::Sender<EnvoyState>,
    /// Why the Envoy that serves is not the configured one.
    pub(super) envoy_problem: watch::Sender<Option<String>>,
    pub(super) intercept: watch::Sender<InterceptState>,
    pub(super) container: watch::Sender<ContainerState>,
    pub(super) probe: watch::Sender<ProbeState>,
    pub(super) health: watch::Sender<Health>,
    /// What was turned away because a bound was reached; every part counts in it.
    pub(super) refusals: Refusals,
}

impl Channels {
    pub(super) fn new(membership: Membership, config: &Config, shared: Shared) -> Self {
        let Shared {
            health,
            join_problem,
            refusals,
        } = shared;
        let container = match &config.workload.container {
            Some(_) => ContainerState::Waiting {
                reason: "Envoy is not ready".to_owned(),
            },
            None => ContainerState::NotConfigured,
        };
        let probed = config.health.probe.is_some() || membership.probe.is_some();
        let probe = if probed {
            ProbeState::Unknown
        } else {
            ProbeState::NotConfigured
        };
        let mut addresses = config.control_plane.addresses.clone();
        if addresses.is_empty() {
            addresses.push(membership.discovery_address.clone());
        }
        let choice = Choice::new(addresses, config.control_plane.return_after, Clock::System);
        Self {
            choice,
            membership: watch::Sender::new(Arc::new(membership)),
            credentials: watch::Sender::new(None),
            identity_problem: watch::Sender::new(None),
            join_problem,
            names: watch::Sender::new(None),
            xds: watch::Sender::default(),
            envoy: watch::Sender::default(),
            envoy_problem: watch::Sender::new(None),
            intercept: watch::Sender::default(),
            container: watch::Sender::new(container),
            probe: watch::Sender::new(probe),
            health,
            refusals,
        }
    }

    pub(super) fn membership(&self) -> Arc<Membership> {
        Arc::clone(&self.membership.borrow())
    }

    /// What `status` is told at any moment.
    pub(super) fn status(&self, started: SystemTime) -> Status {
        let membership = self.membership();
        Status {
            agent: Agent::Running {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                since: started,
                node: format!("{}.{}", membership.node_name, membership.spiffe_id.namespace),
                control_plane: membership.discovery_address.clone(),
            },
            health: self.health.borrow().clone(),
            identity: self.credentials.borrow().as_deref().map(IdentityStatus::from),
            control_planes: self.choice.facts(),
            xds: self.xds.borrow().clone(),
            envoy: self.envoy.borrow().clone(),
            interception: self.intercept.borrow().clone(),
            container: self.container.borrow().clone(),
            probe: self.probe.borrow().clone(),
            refused: self.refusals.all(),
        }
    }
}
