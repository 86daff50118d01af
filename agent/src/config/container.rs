//! `[workload.container]`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

use serde::Serializer;
use serde::de::{Deserializer, Error};
use serde::{Deserialize, Serialize};

use super::layout::check_socket;
use super::{Checks, Size, duration, ports};

/// The application's container.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
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
    #[serde(default, serialize_with = "super::hidden::without_values")]
    pub env: BTreeMap<String, String>,
    /// Arguments instead of the image's.
    #[serde(default, serialize_with = "super::hidden::as_many")]
    pub command: Option<Vec<String>>,
    /// Docker Engine's socket.
    #[serde(default = "default_socket")]
    pub docker_socket: String,
    /// Time between TERM and KILL when it is stopped.
    #[serde(default = "default_stop_timeout", with = "duration")]
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
    #[serde(default, serialize_with = "as_text")]
    pub memory: Option<Size>,
    /// Most processors that it may use at once; absent: all.
    #[serde(default)]
    pub cpus: Option<f64>,
    /// Most processes and threads.
    #[serde(default = "default_pids_limit")]
    pub pids_limit: u32,
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
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

impl Serialize for PortMapping {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PortMapping {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl ContainerConfig {
    pub(super) fn checks(&self) -> Checks {
        let mut checks = vec![self.check_name(), self.check_image(), self.check_env()];
        if self.network == Network::Host && !self.ports.is_empty() {
            checks.push(Err(
                "workload.container.ports: a container on network \"host\" publishes no ports: remove them".to_owned(),
            ));
        }
        checks.extend(self.check_ports());
        checks.push(check_socket(
            "workload.container.docker_socket",
            Path::new(&self.docker_socket),
        ));
        checks.push(self.check_limits());
        checks
    }

    fn check_name(&self) -> Result<(), String> {
        let first = self.name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
        let rest = self
            .name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c));
        // Docker refuses a name of one character, too.
        match first && rest && self.name.len() > 1 {
            true => Ok(()),
            false => Err(format!(
                "workload.container.name = {:?}: Docker wants [a-zA-Z0-9][a-zA-Z0-9_.-]+, such as \"productcatalog\"",
                self.name
            )),
        }
    }

    /// A name, and of which image of that name.
    fn check_image(&self) -> Result<(), String> {
        let problem = match self.image.as_str() {
            "" => "is empty: write NAME:TAG, or NAME@sha256:…",
            image if image.contains(|c: char| c.is_whitespace() || c.is_control()) => {
                "has a blank, and no image's name has: remove it"
            }
            image if image.contains("://") => "is a URL: leave out what comes before the registry's host",
            image if !is_pinned(image) => {
                "has neither a tag nor a digest, and Docker would take whatever is \"latest\": write NAME:TAG, or \
                 NAME@sha256:…"
            }
            _ => return Ok(()),
        };
        Err(format!("workload.container.image = {:?}: {problem}", self.image))
    }

    fn check_env(&self) -> Result<(), String> {
        let is_wrong = |name: &&String| name.is_empty() || name.contains(['=', '\0']);
        match self.env.keys().find(is_wrong) {
            Some(name) => Err(format!(
                "workload.container.env: {name:?} can't be a variable's name: it is not empty and has no '='"
            )),
            None => Ok(()),
        }
    }

    fn check_ports(&self) -> Checks {
        const KEY: &str = "workload.container.ports";
        let mut checks = Vec::new();
        for (index, port) in self.ports.iter().enumerate() {
            let free = ports::check_free(port.host);
            checks.push(free.map_err(|problem| format!("{KEY}: \"{port}\": {problem}")));
            if self.ports.iter().take(index).any(|earlier| earlier.host == port.host) {
                checks.push(Err(format!(
                    "{KEY}: \"{port}\": port {} of the VM is there twice: remove one of them",
                    port.host
                )));
            }
        }
        checks
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

/// True for a reference with a tag or a digest; a port of the registry is neither.
fn is_pinned(image: &str) -> bool {
    let name = image.rsplit('/').next().unwrap_or(image);
    let is_digest = |digest: &str| digest.strip_prefix("sha256:").is_some_and(|hex| !hex.is_empty());
    match name.split_once('@') {
        Some((_, digest)) => is_digest(digest),
        None => name
            .split_once(':')
            .is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty()),
    }
}

/// A size as it is written.
fn as_text<S: Serializer>(size: &Option<Size>, serializer: S) -> Result<S::Ok, S::Error> {
    size.map(|size| size.to_string()).serialize(serializer)
}

fn one_as_text<S: Serializer>(size: &Size, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(size)
}
