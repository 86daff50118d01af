//! What the parts of `envoy` are told, and whose its process and its files are.

use tokio::sync::watch;

use super::admin::Admin;
use crate::bounds::Refusals;
use crate::config::{Config, EnvoyConfig, PathsConfig, PortMapping, ports};
use crate::facts::EnvoyState;
use crate::host::{Host, Owner};

/// Whose process Envoy is.
pub(super) const ENVOY_USER: Owner = Owner {
    uid: ports::PROXY_UID,
    gid: ports::PROXY_GID,
};
/// Whose the files are that Envoy reads and only the agent writes, of mode 0640.
pub(super) const ENVOY_READABLE: Owner = Owner { uid: 0, ..ENVOY_USER };

/// What Envoy's tasks need of the configuration.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// `[envoy]`.
    pub config: EnvoyConfig,
    /// `[paths]`.
    pub paths: PathsConfig,
    /// The systemd unit that Envoy is started as; absent: it is a process of ours.
    pub unit: Option<String>,
    /// What a container publishes on Docker's bridge.
    pub published: Vec<PortMapping>,
    /// Counts what Envoy writes too much.
    pub refusals: Refusals,
}

/// What Envoy's task publishes.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// How Envoy is.
    pub state: watch::Sender<EnvoyState>,
    /// Why the Envoy that serves is not the configured one.
    pub problem: watch::Sender<Option<String>>,
}

impl Options {
    /// What the whole configuration says of Envoy.
    pub fn new(host: Host, config: &Config, unit: Option<String>) -> Self {
        let container = config.workload.container.as_ref();
        Self {
            host,
            config: config.envoy.clone(),
            paths: config.paths.clone(),
            unit,
            published: container.map_or_else(Vec::new, |it| it.published().to_vec()),
            refusals: Refusals::default(),
        }
    }

    /// Those of a VM with nothing configured.
    #[cfg(test)]
    pub(super) fn bare(host: Host) -> Self {
        Self {
            host,
            config: EnvoyConfig::default(),
            paths: PathsConfig::default(),
            unit: None,
            published: Vec::new(),
            refusals: Refusals::default(),
        }
    }

    /// A client of Envoy's admin interface.
    pub fn admin(&self) -> Admin {
        Admin::new(self.host.real_path(&self.paths.admin_socket()))
    }
}
