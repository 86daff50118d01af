//! The operator's TOML. Parsed whole, checked whole; unknown keys are errors.
//!
//! Every struct here is one table of the file, and each feature is handed only its own.
//! `config.example.toml` documents every key and is tested against these defaults.

mod container;
mod duration;
pub(crate) mod env;
mod envoy;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gke;
mod https;
mod instance;
mod join;
mod key_origin;
mod kubernetes;
mod layout;
mod log;
pub(crate) mod mesh_address;
pub mod ports;
mod position;
mod probe;
mod size;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::facts::{HostPort, Probe, ProbeKind};
use crate::host::{Host, Read, ReadError};

pub use container::{
    ContainerConfig, DEFAULT_LOG_SIZE, DEFAULT_PIDS_LIMIT, DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT, Network, PortMapping,
};
pub use duration::LONGEST;
pub(crate) use duration::parse_duration;
pub use envoy::{EnvoyConfig, EnvoySource};
pub use gke::{GkeConfig, GkeEndpoint};
pub use https::HttpsConfig;
pub(crate) use instance::{Attributes, complete, ours, short_cluster};
pub use join::{DirectoryConfig, JoinConfig};
pub use key_origin::KeyOrigin;
pub use kubernetes::KubernetesConfig;
pub(crate) use kubernetes::is_kubernetes_name;
pub use log::{LogConfig, LogFormat};
pub use probe::ProbeConfig;
pub use size::Size;

/// Where the configuration is looked for when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/istio-vm-agent/config.toml";

/// A file larger than this is not one of ours.
const MAX_BYTES: usize = 1 << 20;
/// The shortest life of a certificate that a renewal, tried again for a while, fits into.
const SHORTEST_TTL: Duration = Duration::from_secs(10 * 60);
/// Kubernetes' own limit for a name.
const LONGEST_NAME: usize = 253;

/// The whole file.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where cluster.env, mesh.yaml, roots, hosts and the token come from.
    pub join: JoinConfig,
    /// Where istiod is.
    #[serde(default)]
    pub control_plane: ControlPlaneConfig,
    /// Who this VM is on the network.
    #[serde(default)]
    pub network: NetworkConfig,
    /// Key and certificate.
    #[serde(default)]
    pub identity: IdentityConfig,
    /// Redirection of the VM's traffic.
    #[serde(default)]
    pub intercept: InterceptConfig,
    /// The proxy.
    #[serde(default)]
    pub envoy: EnvoyConfig,
    /// The application.
    #[serde(default)]
    pub workload: WorkloadConfig,
    /// How the application is probed.
    #[serde(default)]
    pub health: HealthConfig,
    /// Directories.
    #[serde(default)]
    pub paths: PathsConfig,
    /// The agent's log.
    #[serde(default)]
    pub log: LogConfig,
}

/// The configuration of a verb that goes on without one: the defaults, and the join source of config.example.toml.
impl Default for Config {
    fn default() -> Self {
        Self {
            join: JoinConfig::default(),
            control_plane: ControlPlaneConfig::default(),
            network: NetworkConfig::default(),
            identity: IdentityConfig::default(),
            intercept: InterceptConfig::default(),
            envoy: EnvoyConfig::default(),
            workload: WorkloadConfig::default(),
            health: HealthConfig::default(),
            paths: PathsConfig::default(),
            log: LogConfig::default(),
        }
    }
}

/// `[control_plane]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct ControlPlaneConfig {
    /// `host:port` in order of preference; empty: mesh.yaml's discoveryAddress.
    pub addresses: Vec<String>,
    /// How long an earlier one must have been well before the agent turns back to it; as much again is the most
    /// that chance adds.
    #[serde(deserialize_with = "duration::bounded")]
    pub return_after: Duration,
    /// Time given to all proxies of the mesh to hear that this VM leaves, from when istiod has told this VM's own.
    #[serde(deserialize_with = "duration::bounded")]
    pub propagation: Duration,
}

impl Default for ControlPlaneConfig {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            return_after: Duration::from_secs(60),
            propagation: Duration::from_secs(2),
        }
    }
}

impl ControlPlaneConfig {
    fn check(&self) -> Result<(), String> {
        if self.return_after.is_zero() {
            return Err("control_plane.return_after: must be longer than 0s, such as \"1m\"".to_owned());
        }
        for (index, address) in self.addresses.iter().enumerate() {
            HostPort::check_encrypted(address).map_err(|error| format!("control_plane.addresses: {error}"))?;
            let earlier = self.addresses.iter().take(index);
            if earlier.into_iter().any(|earlier| earlier.eq_ignore_ascii_case(address)) {
                return Err(format!(
                    "control_plane.addresses: {address:?} is there twice: remove one of them"
                ));
            }
        }
        Ok(())
    }
}

/// `[network]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The address peers call; absent: the source address of the route to the control plane.
    pub address: Option<IpAddr>,
    /// The VM's name in the mesh; absent: its short host name.
    pub name: Option<String>,
    /// Names that a bundle may put into /etc/hosts beside those of istiod.
    pub hosts_allow: Vec<String>,
}

impl NetworkConfig {
    fn check(&self) -> Result<(), String> {
        if let Some(address) = self.address {
            mesh_address::check(address).map_err(|problem| format!("network.address = \"{address}\": {problem}"))?;
        }
        if let Some(name) = &self.name {
            check_name(name).map_err(|problem| format!("network.name = {name:?}: {problem}"))?;
        }
        Ok(())
    }
}

/// The VM's name in the mesh becomes a part of the node id, where `~` and blanks would end it, and of objects' names.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_valid) {
        true => Ok(()),
        false => Err(format!(
            "can't be the VM's name in the mesh: it has 1 to {LONGEST_NAME} letters, digits, '.', '-' and '_'"
        )),
    }
}

/// `[identity]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct IdentityConfig {
    /// Kind of the private key.
    pub key: KeyKind,
    /// Life asked of the CA, ten minutes at least; istiod refuses more than its MAX_WORKLOAD_CERT_TTL, 90 days.
    #[serde(deserialize_with = "duration::bounded")]
    pub ttl: Duration,
}

impl Default for IdentityConfig {
    fn default() -> Self {
        Self {
            key: KeyKind::default(),
            ttl: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl IdentityConfig {
    fn check(&self) -> Result<(), String> {
        match self.ttl < SHORTEST_TTL {
            true => Err(format!(
                "identity.ttl = \"{}\": must be \"10m\" or longer, such as \"24h\": the certificate is renewed at half \
                 of it",
                humantime::format_duration(self.ttl)
            )),
            false => Ok(()),
        }
    }
}

/// Kind of the private key.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
pub enum KeyKind {
    /// ECDSA on P-256: made in microseconds.
    #[default]
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSA of 2048 bits, for CAs that sign nothing else.
    #[serde(rename = "rsa-2048")]
    Rsa2048,
}

/// `[intercept]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct InterceptConfig {
    /// The backend that carries the rules.
    pub backend: Backend,
    /// The fate of traffic while Envoy is dead.
    pub on_envoy_down: OnEnvoyDown,
    /// Users of this VM, by number, whose calls to the application don't go through Envoy; root's never do.
    pub direct_uids: Vec<u32>,
}

/// The backend that carries the rules.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nftables where the kernel can, else iptables.
    #[default]
    Auto,
    /// Istio's ISTIO_* chains.
    Iptables,
    /// One table of our own.
    Nftables,
    /// No rules; the operator redirects.
    None,
}

/// Per direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct OnEnvoyDown {
    /// Calls to this VM.
    pub inbound: FailPolicy,
    /// Calls from this VM.
    pub outbound: FailPolicy,
}

/// The fate of traffic while Envoy is dead.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum FailPolicy {
    /// Traffic is refused.
    #[default]
    Closed,
    /// Traffic goes past the mesh.
    Open,
}

/// `[workload]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct WorkloadConfig {
    /// The application's container; absent: the operator runs the application.
    pub container: Option<ContainerConfig>,
}

/// `[health]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// The probe; absent: the WorkloadGroup's.
    pub probe: Option<ProbeConfig>,
    /// True when the WorkloadGroup's probe may be a command, which whoever writes the group then runs on this VM.
    pub allow_remote_exec: bool,
}

impl HealthConfig {
    /// The operator's probe, else the WorkloadGroup's; and why that may not be asked.
    pub fn choose(&self, theirs: Option<&Probe>) -> Option<(Probe, Option<&'static str>)> {
        if let Some(probe) = &self.probe {
            return Some((probe.0.clone(), None));
        }
        let is_command = |probe: &Probe| matches!(probe.kind, ProbeKind::Exec { .. });
        let refused = "the WorkloadGroup's probe is a command, and those are the operator's to allow: give a probe in \
                       [health.probe], or set health.allow_remote_exec = true";
        theirs.map(|probe| {
            let reason = (is_command(probe) && !self.allow_remote_exec).then_some(refused);
            (probe.clone(), reason)
        })
    }
}

/// `[paths]`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub struct PathsConfig {
    /// Directory of what outlives a reboot: key, certificate.
    pub state: PathBuf,
    /// Directory of what doesn't: sockets, Envoy's bootstrap and pid.
    pub run: PathBuf,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            state: PathBuf::from("/var/lib/istio-vm-agent"),
            run: PathBuf::from("/run/istio-vm-agent"),
        }
    }
}

/// Why a configuration can't be used; shown as it is to the operator.
#[derive(Debug, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    /// `file` or `file:line`.
    place: String,
    problem: String,
}

impl ConfigError {
    /// An error about `path`.
    pub fn new(path: &Path, problem: impl Into<String>) -> Self {
        Self::about(path.display().to_string(), problem)
    }

    /// An error about `place`, which is no file: a URL, an object of a cluster, an attribute.
    pub fn about(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            problem: problem.into(),
        }
    }

    /// An error about one line of `path`; lines count from 1.
    pub fn at(path: &Path, line: usize, problem: impl Into<String>) -> Self {
        Self {
            place: format!("{}:{line}", path.display()),
            problem: problem.into(),
        }
    }

    /// An error about a key that was well-formed and turned out to be of no use.
    pub fn key(key: &str, problem: impl Into<String>) -> Self {
        Self::about(key, problem)
    }
}

impl From<ReadError> for ConfigError {
    fn from(error: ReadError) -> Self {
        Self::new(error.path(), format!("failed to read: {}", error.problem()))
    }
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = Host::system().read(path, Read::max(MAX_BYTES).following_links())?;
        let text = text.ok_or_else(|| ConfigError::new(path, "there is no such file"))?;
        Self::parse(path, &text)
    }

    /// Parses and checks `text`; `path` is for error messages only.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigError::new(
                path,
                format!("is {} bytes long, at most {MAX_BYTES} are read", text.len()),
            ));
        }
        let config: Self = toml::from_str(text).map_err(|error| {
            let (place, problem) = position::explain(path, text, &error);
            ConfigError::about(place, problem)
        })?;
        config
            .check()
            .map_err(|problem| ConfigError::about(position::place(path, text, &problem), problem))?;
        Ok(config)
    }

    /// Checks what serde can't say: values that are of the right type and still make no sense. Each problem begins
    /// with its key.
    fn check(&self) -> Result<(), String> {
        self.join.check()?;
        self.control_plane.check()?;
        self.network.check()?;
        self.identity.check()?;
        self.envoy.check()?;
        if let Some(container) = &self.workload.container {
            container.check()?;
        }
        self.paths.check()?;
        self.log.check()
    }
}

/// The agent's working directory is nobody's business.
fn absolute(key: &str, path: &Path) -> Result<(), String> {
    if path.is_absolute() {
        return Ok(());
    }
    Err(format!("{key} = {path:?}: must be an absolute path"))
}

#[cfg(test)]
mod tests;
