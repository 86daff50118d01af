//! The options of Envoy's tasks, and the owners of its process and its files.

use tokio::sync::watch;

use super::admin::Admin;
use crate::bounds::Refusals;
use crate::config::{Config, EnvoyConfig, PathsConfig, PortMapping};
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
    /// The ports that a container publishes on Docker's bridge.
    pub published: Vec<PortMapping>,
    /// The counter of the log lines that Envoy writes beyond its budgets.
    pub refusals: Refusals,
    /// Counts of restarts and hand-overs.
    pub counts: EnvoyCounts,
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
        let container = config.workload.container.as_ref();
        Self {
            host,
            config: config.envoy.clone(),
            paths: config.paths.clone(),
            unit,
            published: container.map_or_else(Vec::new, |it| it.published().to_vec()),
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
