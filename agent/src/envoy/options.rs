//! The options of Envoy's tasks, and the owners of its process and its files.

use tokio::sync::watch;

use super::admin::Admin;
use crate::bounds::Refusals;
use crate::config::{Config, EnvoyConfig, PathsConfig, PortMapping, WorkloadConfig};
use crate::facts::{EnvoyCounts, EnvoyState};
use crate::host::{Host, Owner};
use crate::part::ENVOY_USER;

/// The owner of files that Envoy reads and only the agent writes, of mode 0640.
pub(super) const ENVOY_READABLE: Owner = Owner { uid: 0, ..ENVOY_USER };

/// The configuration of Envoy's tasks.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine that Envoy runs on.
    pub host: Host,
    /// The configuration's `[envoy]`.
    pub config: EnvoyConfig,
    /// The configuration's `[paths]`.
    pub paths: PathsConfig,
    /// The template of the systemd unit that Envoy is started as; `None`: Envoy is a process of the agent's.
    pub unit: Option<String>,
    /// The ports that containers publish on Docker's bridge.
    pub published: Vec<Published>,
    /// The counter of the log lines that Envoy writes beyond its budgets.
    pub refusals: Refusals,
    /// Counts of restarts and hand-overs.
    pub counts: EnvoyCounts,
}

/// The ports that one container publishes.
#[derive(Clone, Debug)]
pub struct Published {
    /// The name of its application.
    pub workload: String,
    /// One at least.
    pub ports: Vec<PortMapping>,
}

impl Published {
    fn of(workload: &WorkloadConfig) -> Option<Self> {
        let ports = workload.container.as_ref()?.published().to_vec();
        (!ports.is_empty()).then(|| Self {
            workload: workload.name.clone(),
            ports,
        })
    }
}

/// The channels that Envoy's task publishes on.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// The state of the Envoy that serves or is to serve.
    pub state: watch::Sender<EnvoyState>,
    /// The reason why the Envoy that serves is not the configured one; `None` when it is.
    pub problem: watch::Sender<Option<String>>,
    /// The version of the Envoy that serves; `None` before one has said so.
    pub version: watch::Sender<Option<String>>,
}

impl Options {
    /// Takes Envoy's options out of the whole configuration.
    pub fn new(host: Host, config: &Config, unit: Option<String>) -> Self {
        Self {
            host,
            config: config.envoy.clone(),
            paths: config.paths.clone(),
            unit,
            published: config.workloads.iter().filter_map(Published::of).collect(),
            refusals: Refusals::default(),
            counts: EnvoyCounts::default(),
        }
    }

    /// The options of a VM with nothing configured.
    #[cfg(test)]
    pub(super) fn bare(host: Host) -> Self {
        Self {
            host,
            config: EnvoyConfig::default(),
            paths: PathsConfig::default(),
            unit: None,
            published: Vec::new(),
            refusals: Refusals::default(),
            counts: EnvoyCounts::default(),
        }
    }

    /// Makes a client of Envoy's admin interface.
    pub fn admin(&self) -> Admin {
        Admin::new(self.host.real_path(&self.paths.admin_socket()))
    }
}
