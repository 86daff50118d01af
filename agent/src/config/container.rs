//! `[workload.container]`.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::duration;

/// The application's container.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// Its name in Docker.
    pub name: String,
    /// Image reference, a digest for preference.
    pub image: String,
    /// `bridge` (Docker's default bridge) or `host`.
    #[serde(default)]
    pub network: Network,
    /// Published ports, `host:container` (TCP).
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Arguments instead of the image's.
    #[serde(default)]
    pub command: Option<Vec<String>>,
    /// Docker Engine's socket.
    #[serde(default = "default_socket")]
    pub docker_socket: String,
    /// Time between TERM and KILL when it is stopped.
    #[serde(default = "default_stop_timeout", deserialize_with = "duration::bounded")]
    pub stop_timeout: Duration,
}

impl ContainerConfig {
    /// What is published on Docker's bridge; on the VM's own network nothing needs to be.
    pub fn published(&self) -> &[PortMapping] {
        match self.network {
            Network::Bridge => &self.ports,
            Network::Host => &[],
        }
    }
}

/// Docker Engine's socket.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Docker's own time between TERM and KILL.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

fn default_socket() -> String {
    DEFAULT_SOCKET.to_owned()
}

fn default_stop_timeout() -> Duration {
    DEFAULT_STOP_TIMEOUT
}

/// How the container reaches the network.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Docker's default bridge.
    #[default]
    Bridge,
    /// The VM's own.
    Host,
}

/// `host:container`, TCP.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortMapping {
    /// Port on the VM.
    pub host: u16,
    /// Port in the container.
    pub container: u16,
}

impl FromStr for PortMapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let port = |part: &str| part.parse::<u16>().ok().filter(|port| *port != 0);
        text.split_once(':')
            .and_then(|(host, container)| {
                Some(Self {
                    host: port(host)?,
                    container: port(container)?,
                })
            })
            .ok_or_else(|| format!("{text:?} is not host-port:container-port, such as \"3550:3550\""))
    }
}

impl fmt::Display for PortMapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.container)
    }
}

impl<'de> Deserialize<'de> for PortMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl ContainerConfig {
    pub(super) fn check(&self) -> Result<(), String> {
        let first = self.name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = self
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        // Docker refuses a name of one character, too.
        if !(first && rest && self.name.len() > 1) {
            return Err(format!(
                "workload.container.name = {:?}: Docker wants [a-zA-Z0-9][a-zA-Z0-9_.-]+",
                self.name
            ));
        }
        if self.image.is_empty() {
            return Err("workload.container.image is empty".to_owned());
        }
        if self.network == Network::Host && !self.ports.is_empty() {
            return Err("workload.container.ports: a container on network \"host\" publishes no ports".to_owned());
        }
        Ok(())
    }
}
