//! `[workload.container]`.

mod checks;
mod mount;
mod names;
mod port_mapping;
mod ulimit;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::Serializer;
use serde::{Deserialize, Serialize};

pub use mount::{Mount, SECRETS_TARGET};
use names::capability;
pub use port_mapping::PortMapping;
pub use ulimit::Ulimit;

use super::{Size, duration};

/// The application's container.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// The container's name in Docker.
    pub name: String,
    /// Image reference, a digest for preference.
    pub image: String,
    /// Docker's config.json with the registry's login; absent: none, or on Google the VM's identity.
    #[serde(default)]
    pub registry_config: Option<PathBuf>,
    /// Earlier images of the same repository that stay, the last built ones; absent: all.
    #[serde(default)]
    pub keep_images: Option<usize>,
    /// `bridge` (Docker's default bridge) or `host`.
    #[serde(default)]
    pub network: Network,
    /// Published ports, `host:container` (TCP).
    #[serde(default)]
    pub ports: Vec<PortMapping>,
    /// Environment.
    #[serde(default, serialize_with = "super::hidden::without_values")]
    pub env: BTreeMap<String, String>,
    /// Files of more variables, a `NAME=value` each line; `env` wins, and a later file over an earlier one.
    #[serde(default)]
    pub env_files: Vec<PathBuf>,
    /// Files that it finds in [`SECRETS_TARGET`] under their own names, and that are nowhere else to be seen.
    #[serde(default)]
    pub secrets: Vec<PathBuf>,
    /// Directories and files of the VM, and Docker's volumes, `source:target[:ro]`.
    #[serde(default)]
    pub mounts: Vec<Mount>,
    /// Directories in memory, which end with the container.
    #[serde(default)]
    pub tmpfs: Vec<String>,
    /// Arguments instead of the image's.
    #[serde(default, serialize_with = "super::hidden::as_many")]
    pub command: Option<Vec<String>>,
    /// `USER[:GROUP]` of its first process, by number or by name; absent: the image's.
    #[serde(default)]
    pub user: Option<String>,
    /// True when it can write into its mounts alone.
    #[serde(default)]
    pub read_only: bool,
    /// Labels beside the agent's own.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Docker Engine's socket.
    #[serde(default = "default_socket")]
    pub docker_socket: String,
    /// Time between TERM and KILL when it is stopped.
    #[serde(default = "default_stop_timeout", with = "duration")]
    pub stop_timeout: Duration,
    /// Way in which another one takes its place; absent: `rolling`, or `recreate` where a mount of it can be written.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// Time that one which takes the place of another is given to be well.
    #[serde(default = "default_startup_timeout", with = "duration")]
    pub startup_timeout: Duration,
    /// Signal that asks it to end, by number or by name; absent: the image's, else TERM.
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// True when it may speak to the cloud's metadata server, and so act as the VM's own cloud identity.
    #[serde(default)]
    pub cloud_identity: bool,
    /// Capabilities of Docker's default set that it doesn't get; absent: what no server needs.
    #[serde(default)]
    pub cap_drop: Option<Vec<String>>,
    /// Capabilities that it gets, whatever is dropped.
    #[serde(default)]
    pub cap_add: Vec<String>,
    /// True when its processes can never gain what they didn't start with (PR_SET_NO_NEW_PRIVS).
    #[serde(default = "default_no_new_privileges")]
    pub no_new_privileges: bool,
    /// Most memory that it may use; absent: as much as there is.
    #[serde(default, serialize_with = "as_text")]
    pub memory: Option<Size>,
    /// Most processors that it may use at once; absent: all.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// Most processes and threads.
    #[serde(default = "default_pids_limit")]
    pub pids_limit: u32,
    /// Limits of its processes (setrlimit(2)), `soft[:hard]`.
    #[serde(default)]
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Most that dockerd keeps of its output, where dockerd keeps files without a limit of their own.
    #[serde(default = "default_log_size", serialize_with = "one_as_text")]
    pub log_size: Size,
}

/// Capabilities of Docker's default set that no server needs: raw packets, which pass the redirection by; device files; the audit
/// log; file capabilities; another root directory.
const NEVER_NEEDED: [&str; 5] = ["AUDIT_WRITE", "MKNOD", "NET_RAW", "SETFCAP", "SYS_CHROOT"];
/// On the VM's own network who a process is decides what becomes of its packets: as user or group 1337 it would be
/// Envoy.
const BECOMING_ANOTHER: [&str; 2] = ["SETGID", "SETUID"];

impl ContainerConfig {
    /// Capabilities of Docker's default set that it doesn't get.
    pub fn dropped(&self) -> Vec<String> {
        let mut dropped = match (&self.cap_drop, self.network) {
            (Some(configured), _) => configured.iter().map(|name| capability(name)).collect(),
            (None, Network::Bridge) => NEVER_NEEDED.map(str::to_owned).to_vec(),
            (None, Network::Host) => [&NEVER_NEEDED[..], &BECOMING_ANOTHER[..]]
                .concat()
                .into_iter()
                .map(str::to_owned)
                .collect(),
        };
        let added = self.added();
        dropped.retain(|name| !added.contains(name));
        dropped
    }

    /// Capabilities that it gets beside the rest of Docker's default set.
    pub fn added(&self) -> Vec<String> {
        self.cap_add.iter().map(|name| capability(name)).collect()
    }

    /// Way in which another container takes its place.
    pub fn rollout(&self) -> Rollout {
        let is_shared = self.mounts.iter().any(|mount| !mount.read_only);
        let default = if is_shared { Rollout::Recreate } else { Rollout::Rolling };
        self.rollout.unwrap_or(default)
    }

    /// The ports published on Docker's bridge; on the VM's own network nothing needs to be.
    pub fn published(&self) -> &[PortMapping] {
        match self.network {
            Network::Bridge => &self.ports,
            Network::Host => &[],
        }
    }
}

/// Way in which another container takes the place of one that runs.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Rollout {
    /// The next one is started beside the former, and calls move to it once it is well.
    Rolling,
    /// Callers are sent elsewhere first, and the two never run at once.
    Recreate,
}

/// Docker Engine's socket.
pub const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Docker's own time between TERM and KILL.
pub const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// Time in which a large application starts.
const DEFAULT_STARTUP_TIMEOUT: Duration = Duration::from_secs(120);
/// More than a server of hundreds of threads has, and few enough that a fork bomb ends in its container.
pub const DEFAULT_PIDS_LIMIT: u32 = 4096;
/// Days of a server's log.
pub const DEFAULT_LOG_SIZE: Size = Size::mebibytes(100);
fn default_socket() -> String {
    DEFAULT_SOCKET.to_owned()
}

fn default_stop_timeout() -> Duration {
    DEFAULT_STOP_TIMEOUT
}

fn default_startup_timeout() -> Duration {
    DEFAULT_STARTUP_TIMEOUT
}

fn default_no_new_privileges() -> bool {
    true
}

fn default_pids_limit() -> u32 {
    DEFAULT_PIDS_LIMIT
}

fn default_log_size() -> Size {
    DEFAULT_LOG_SIZE
}

/// Network of the container.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// Docker's default bridge.
    #[default]
    Bridge,
    /// The VM's own.
    Host,
}

/// A size as it is written.
fn as_text<S: Serializer>(size: &Option<Size>, serializer: S) -> Result<S::Ok, S::Error> {
    size.map(|size| size.to_string()).serialize(serializer)
}

fn one_as_text<S: Serializer>(size: &Size, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(size)
}
