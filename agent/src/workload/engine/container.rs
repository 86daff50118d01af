//! A container as Docker tells of it.

use std::net::IpAddr;

use bollard::models::{ContainerInspectResponse, HealthStatusEnum};

use super::WaitEnd;
use crate::facts::ProbeState;
use crate::workload::spec::{self, DEFAULTS, DEFAULTS_NOW, Limits, SPEC};
use crate::workload::wanted::Wanted;

/// The name of Docker's default network.
const BRIDGE: &str = "bridge";

/// A container that is there.
#[derive(Debug, Eq, PartialEq)]
pub(in crate::workload) struct Container {
    /// The id, 64 hex characters.
    pub(in crate::workload) id: String,
    /// The name, without Docker's leading slash.
    pub(in crate::workload) name: String,
    /// The hash of the specification it was made from, empty for the container of a copy; `None` when it isn't the
    /// agent's.
    pub(in crate::workload) spec: Option<String>,
    /// True when it was made with today's defaults ([`DEFAULTS_NOW`]).
    pub(in crate::workload) up_to_date: bool,
    /// The user and the group as Docker takes them, by number or by name, such as `1000:www-data`; empty: root.
    pub(in crate::workload) user: String,
    /// Limits of the container; `None` when Docker says nothing of them.
    pub(in crate::workload) limits: Option<Limits>,
    /// True when Docker publishes ports of it on the VM.
    pub(in crate::workload) publishes: bool,
    /// State by the HEALTHCHECK of its image.
    pub(in crate::workload) healthcheck: Healthcheck,
    /// True while its processes are frozen.
    pub(in crate::workload) paused: bool,
    /// True while its process lives.
    pub(in crate::workload) running: bool,
    /// The address on Docker's bridge; `None` on another network, or when it doesn't run.
    pub(in crate::workload) address: Option<IpAddr>,
    /// The end of its process, in words.
    pub(in crate::workload) end: String,
}

/// The verdict of an image's HEALTHCHECK.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::workload) enum Healthcheck {
    /// The image has none.
    None,
    /// The check has not succeeded yet, nor failed for good.
    Starting,
    Healthy,
    Unhealthy,
}

impl Container {
    /// True for the application's; without a specification it is the container of a copy, and Envoy is taken out of it.
    pub(in crate::workload) fn is_workload(&self) -> bool {
        self.spec.as_ref().is_some_and(|spec| !spec.is_empty())
    }

    /// Takes what is used of Docker's answer; `made` is true for a container of the agent's.
    pub(super) fn new(container: ContainerInspectResponse, made: bool) -> Self {
        let state = container.state.unwrap_or_default();
        let config = container.config.unwrap_or_default();
        let mut labels = config.labels.unwrap_or_default();
        let host = container.host_config;
        let networks = container.network_settings.and_then(|settings| settings.networks);
        let bridge = networks.and_then(|mut networks| networks.remove(BRIDGE));
        let status = state.exit_code.unwrap_or_default();
        let memory = state.oom_killed.unwrap_or_default();
        Self {
            id: container.id.unwrap_or_default(),
            name: container.name.unwrap_or_default().trim_start_matches('/').to_owned(),
            spec: made.then(|| labels.remove(SPEC).unwrap_or_default()),
            up_to_date: made && labels.get(DEFAULTS).is_some_and(|number| number == DEFAULTS_NOW),
            user: config.user.unwrap_or_default(),
            limits: host.as_ref().map(Limits::there),
            publishes: host.is_some_and(|host| host.port_bindings.is_some_and(|ports| !ports.is_empty())),
            healthcheck: match state.health.and_then(|health| health.status) {
                Some(HealthStatusEnum::STARTING) => Healthcheck::Starting,
                Some(HealthStatusEnum::HEALTHY) => Healthcheck::Healthy,
                Some(HealthStatusEnum::UNHEALTHY) => Healthcheck::Unhealthy,
                _ => Healthcheck::None,
            },
            paused: state.paused.unwrap_or_default(),
            running: state.running.unwrap_or_default(),
            address: bridge.and_then(|bridge| bridge.ip_address?.parse().ok()),
            end: match state.error.filter(|error| !error.is_empty()) {
                Some(error) => error,
                None if memory => format!("exited with status {status}: the kernel killed it for want of memory"),
                None => WaitEnd::Exited(status).to_string(),
            },
        }
    }

    /// True when it is as wanted but for limits that Docker changes in place.
    pub(in crate::workload) fn can_be(&self, wanted: &Wanted) -> bool {
        let is_of = |spec: &String| spec::is_of(spec, &wanted.config);
        let limits = Limits::wanted(&wanted.config);
        self.spec.as_ref().is_some_and(is_of)
            && (self.running || self.up_to_date)
            && (self.publishes || !wanted.publishes)
            && self.limits.is_none_or(|there| there.can_become(limits))
    }

    /// The reason for which it serves nobody although it runs. What somebody has paused is theirs to let go on.
    pub(in crate::workload) fn trouble(&self) -> Option<String> {
        match self.healthcheck {
            _ if self.paused => Some(format!("it is paused: `docker unpause {}` lets it go on", self.name)),
            Healthcheck::Unhealthy => Some("the HEALTHCHECK of its image fails".to_owned()),
            _ => None,
        }
    }

    /// State by the HEALTHCHECK of its image, in the words of a probe.
    pub(in crate::workload) fn healthcheck(&self) -> ProbeState {
        match self.healthcheck {
            Healthcheck::None => ProbeState::NotConfigured,
            Healthcheck::Starting => ProbeState::Unknown,
            Healthcheck::Healthy => ProbeState::Healthy,
            Healthcheck::Unhealthy => ProbeState::Unhealthy {
                reason: "the HEALTHCHECK of its image fails".to_owned(),
            },
        }
    }

    /// The limits that it is to be given, when it has others. One of an earlier version keeps what it has until its next
    /// start.
    pub(in crate::workload) fn other_limits(&self, wanted: &Wanted) -> Option<Limits> {
        let limits = Limits::wanted(&wanted.config);
        let differs = self.up_to_date && self.limits.is_some_and(|there| there != limits);
        differs.then_some(limits)
    }
}

/// A container's id as `docker ps` shows it.
pub(in crate::workload) fn short_id(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}
