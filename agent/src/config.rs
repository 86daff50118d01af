//! The operator's TOML. Parsed whole, checked whole; unknown keys are errors.
//!
//! Every struct here is one table of the file, and each feature is handed only its own.
//! `config.example.toml` documents every key and is tested against these defaults.

mod attribute;
mod container;
mod control_plane;
mod document;
mod duration;
pub(crate) mod env;
mod envoy;
mod error;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gke;
mod health;
mod hidden;
mod https;
mod identity;
mod image;
mod instance;
mod intercept;
mod join;
mod key_origin;
mod key_places;
mod kubernetes;
mod layout;
mod log;
pub(crate) mod mesh_address;
mod nearest;
mod network;
mod place;
pub mod ports;
mod probe;
mod public_key;
mod service;
mod setting;
mod size;
mod stop;
mod words;
mod workload;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::facts::Probe;
use crate::host::{Host, Read};

pub use container::{
    ContainerConfig, DEFAULT_LOG_SIZE, DEFAULT_PIDS_LIMIT, DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT, Mount, Network,
    PortMapping, Rollout, SECRETS_TARGET, Ulimit,
};
pub use control_plane::ControlPlaneConfig;
use document::Document;
pub use duration::LONGEST;
pub(crate) use duration::parse_duration;
pub(crate) use envoy::LEVELS as ENVOY_LEVELS;
pub use envoy::{EnvoyConfig, EnvoySource};
pub use error::{ConfigError, Fault};
pub use gke::{GkeConfig, GkeEndpoint};
pub use health::HealthConfig;
pub(crate) use hidden::{NOT_SHOWN, hide_secrets};
pub use https::HttpsConfig;
pub(crate) use identity::SHORTEST_TTL;
pub use identity::{IdentityConfig, KeyKind};
pub(crate) use instance::{Attributes, complete, ours, short_cluster};
pub use intercept::{Backend, FailPolicy, InterceptConfig, OnEnvoyDown};
pub use join::{DirectoryConfig, JoinConfig};
pub use key_origin::KeyOrigin;
pub use key_places::KeyPlaces;
pub use kubernetes::KubernetesConfig;
pub use layout::PathsConfig;
pub use log::{LogConfig, LogFormat};
pub(crate) use nearest::{did_you_mean, nearest_of_few, nearest_slip};
pub use network::NetworkConfig;
pub(crate) use network::check_name;
pub use place::Place;
pub use probe::ProbeConfig;
pub(crate) use probe::problems as problems_of_probe;
pub use service::ServiceConfig;
pub(crate) use setting::DEFAULT;
pub use setting::Setting;
pub use size::Size;
pub(crate) use stop::LONGEST_LEAVE;
pub use workload::{WorkloadConfig, Workloads};

/// Where the configuration is looked for when no `--config` is given.
pub const DEFAULT_PATH: &str = "/etc/istio-vm-agent/config.toml";

/// A file larger than this is not one of ours.
const MAX_BYTES: usize = 1 << 20;

/// The whole file. The default is that of a verb that goes on without one, with the join source of config.example.toml.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
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
    /// The application, or each of several.
    #[serde(default, rename = "workload")]
    pub workloads: Workloads,
    /// Probes of the application.
    #[serde(default)]
    pub health: HealthConfig,
    /// Directories.
    #[serde(default)]
    pub paths: PathsConfig,
    /// The agent's log.
    #[serde(default)]
    pub log: LogConfig,
    /// The place of each key that is written.
    #[serde(skip)]
    pub places: KeyPlaces,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = Host::system().read(path, Read::max(MAX_BYTES).following_links())?;
        let text = text.ok_or_else(|| ConfigError::new(path, "there is no such file"))?;
        Self::parse(path, &text)
    }

    /// The directories alone of a file that is of no use otherwise: an agent may serve that began while it was good.
    pub fn paths_of(path: &Path) -> Option<PathsConfig> {
        #[derive(Deserialize)]
        struct Paths {
            paths: PathsConfig,
        }
        let text = Host::system()
            .read(path, Read::max(MAX_BYTES).following_links())
            .ok()??;
        let Paths { paths } = toml::from_str(&text).ok()?;
        paths.checks().iter().all(Result::is_ok).then_some(paths)
    }

    /// Parses and checks `text`; `path` is for error messages only.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigError::new(
                path,
                format!("is {} bytes long, at most {MAX_BYTES} are read", text.len()),
            ));
        }
        Document::parse(path, text)?.config()
    }

    fn check_admin(&self) -> Result<(), String> {
        let mut published = self.workloads.published().map(|port| port.host);
        match self
            .envoy
            .admin_port
            .filter(|admin| published.any(|port| port == *admin))
        {
            Some(port) => Err(format!(
                "envoy.admin_port = {port}: a container publishes that port: take another one, such as 15000, or leave it out for \
                 a unix socket"
            )),
            None => Ok(()),
        }
    }

    /// Probes of the application's life are of use to whoever can start it again, and of which there is one.
    fn check_life(&self) -> Result<(), String> {
        let keys = [
            ("health.liveness_probe", self.health.liveness_probe.is_some()),
            ("health.startup_probe", self.health.startup_probe.is_some()),
        ];
        let Some((key, _)) = keys.into_iter().find(|(_, is_there)| *is_there) else {
            return Ok(());
        };
        match self.workloads.only() {
            Some(only) if only.container.is_some() || only.service.is_some() => Ok(()),
            Some(_) => Err(format!(
                "{key}: the agent starts the application again when it fails, and so has to run it: give \
                 [workload.container] or [workload.service], or put it into [health.probe]"
            )),
            None => Err(format!(
                "{key}: of several applications it doesn't say which one is started again: put it into its [[workload]]"
            )),
        }
    }

    /// The startup probe and the liveness probe of an application: its own, or for the only one those of `[health]`.
    pub fn life_of(&self, workload: &WorkloadConfig) -> [Option<Probe>; 2] {
        let of_the_only = self.workloads.only().map(|_| &self.health);
        let startup = workload.startup_probe.as_ref();
        let startup = startup.or_else(|| of_the_only?.startup_probe.as_ref());
        let liveness = workload.liveness_probe.as_ref();
        let liveness = liveness.or_else(|| of_the_only?.liveness_probe.as_ref());
        [startup, liveness].map(|probe| probe.map(|probe| probe.0.clone()))
    }

    /// The sockets in the run directory hand the workload's key out, and Envoy's admin interface.
    fn check_unix_sockets(&self) -> Result<(), String> {
        // /var/run is /run by another name on every system of today.
        let plain = |path: &Path| match path.strip_prefix("/var/run") {
            Ok(rest) => Path::new("/run").join(rest),
            Err(_) => path.to_owned(),
        };
        let run = plain(&self.paths.run);
        let own = |path: &&PathBuf| plain(path).starts_with(&run);
        match self.envoy.unix_sockets.iter().find(own) {
            Some(path) => Err(format!(
                "envoy.unix_sockets = {path:?}: is the agent's own, in paths.run: the mesh is never led there, remove it"
            )),
            None => Ok(()),
        }
    }

    /// Problems that serde can't see: values of the right type that make no sense. Each problem begins with its key.
    fn problems(&self) -> Vec<String> {
        let sections = [
            self.join.checks(),
            self.control_plane.checks(),
            self.network.checks(),
            self.identity.checks(),
            self.intercept.checks(),
            self.envoy.checks(),
            self.workloads.checks(),
            self.health.checks(),
            self.paths.checks(),
            vec![
                self.log.check(),
                self.check_stop(),
                self.check_life(),
                self.check_unix_sockets(),
                self.check_admin(),
            ],
        ];
        sections.into_iter().flatten().filter_map(Result::err).collect()
    }
}

/// Result for each value: a problem begins with its key.
type Checks = Vec<Result<(), String>>;

/// The agent's working directory is nobody's business.
fn absolute(key: &str, path: &Path) -> Result<(), String> {
    let is_plain = path
        .to_str()
        .is_some_and(|path| !path.contains(char::is_control) && path.trim_end() == path);
    match path.is_absolute() {
        true if is_plain => Ok(()),
        true => Err(format!(
            "{key} = {path:?}: has a control character, or a blank at its end, which no path here has: remove it"
        )),
        false => Err(format!("{key} = {path:?}: must be an absolute path")),
    }
}

/// True for a name that a program can look a variable up by.
pub(crate) fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'=')
}

#[cfg(test)]
pub(crate) mod tests;
