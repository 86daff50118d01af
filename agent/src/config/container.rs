//! `[workload.container]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error};

use super::layout::check_socket;
use super::{Size, duration, ports};

/// The application's container.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ContainerConfig {
    /// The container's name in Docker.
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
    #[serde(default)]
    pub memory: Option<Size>,
    /// Most processors that it may use at once; absent: all.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// Most processes and threads.
    #[serde(default = "default_pids_limit")]
    pub pids_limit: u32,
    /// Most that dockerd keeps of its output, where dockerd keeps files without a limit of their own.
    #[serde(default = "default_log_size")]
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

    /// The ports published on Docker's bridge; on the VM's own network nothing needs to be.
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
/// More than a server of hundreds of threads has, and few enough that a fork bomb ends in its container.
pub const DEFAULT_PIDS_LIMIT: u32 = 4096;
/// Days of a server's log.
pub const DEFAULT_LOG_SIZE: Size = Size::mebibytes(100);
/// Docker refuses less.
const LEAST_MEMORY: Size = Size::mebibytes(6);

fn default_socket() -> String {
    DEFAULT_SOCKET.to_owned()
}

fn default_stop_timeout() -> Duration {
    DEFAULT_STOP_TIMEOUT
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

/// The name that Docker has for a capability: `cap_net_raw` is `NET_RAW`.
fn capability(name: &str) -> String {
    let upper = name.to_ascii_uppercase();
    upper.strip_prefix("CAP_").unwrap_or(&upper).to_owned()
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
        self.check_ports()?;
        if let Some(name) = self
            .env
            .keys()
            .find(|name| name.is_empty() || name.contains(['=', '\0']))
        {
            return Err(format!(
                "workload.container.env: {name:?} can't be a variable's name: it is not empty and has no '='"
            ));
        }
        if self.image.contains(char::is_whitespace) {
            return Err(format!(
                "workload.container.image = {:?}: has a blank, and no image's name has",
                self.image
            ));
        }
        check_socket("workload.container.docker_socket", Path::new(&self.docker_socket))?;
        self.check_limits()
    }

    fn check_ports(&self) -> Result<(), String> {
        const KEY: &str = "workload.container.ports";
        for (index, port) in self.ports.iter().enumerate() {
            ports::check_free(port.host).map_err(|problem| format!("{KEY}: \"{port}\": {problem}"))?;
            if self.ports.iter().take(index).any(|earlier| earlier.host == port.host) {
                return Err(format!(
                    "{KEY}: \"{port}\": port {} of the VM is there twice: remove one of them",
                    port.host
                ));
            }
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), String> {
        let named = [
            ("cap_drop", self.cap_drop.as_deref().unwrap_or_default()),
            ("cap_add", &self.cap_add),
        ];
        for (key, names) in named {
            let is_name =
                |name: &&String| !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphabetic() || c == b'_');
            if let Some(wrong) = names.iter().find(|name| !is_name(name)) {
                return Err(format!(
                    "workload.container.{key}: {wrong:?} is no capability, such as \"NET_RAW\", or \"ALL\""
                ));
            }
        }
        if let Some(memory) = self.memory.filter(|memory| *memory < LEAST_MEMORY) {
            return Err(format!(
                "workload.container.memory = \"{memory}\": Docker wants {LEAST_MEMORY} or more"
            ));
        }
        if let Some(cpus) = self.cpus.filter(|cpus| !(0.01..=4096.0).contains(cpus)) {
            return Err(format!("workload.container.cpus = {cpus}: must be from 0.01 to 4096"));
        }
        if self.pids_limit == 0 {
            return Err("workload.container.pids_limit = 0: a container has a process at least".to_owned());
        }
        if self.log_size.bytes() < 2 {
            return Err(
                "workload.container.log_size: must be two bytes at least, a byte for each of two files".to_owned(),
            );
        }
        Ok(())
    }
}
