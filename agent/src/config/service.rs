//! `[workload.service]`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checks, duration};

/// Units that are the agent's own.
const OWN: &str = "istio-vm-agent";
/// Units without which nobody could reach the VM, or the agent Docker and systemd.
const SYSTEM: [&str; 6] = ["containerd", "dbus", "dbus-broker", "docker", "ssh", "sshd"];
/// systemd.unit(5).
const LONGEST_NAME: usize = 255;
/// Default time that a service is given to stop, the same as a container's.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// The application as a systemd service.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// Name of the unit, with `.service`.
    pub unit: String,
    /// Time between its stop signal and its kill, unless the unit's own TimeoutStopSec= is shorter.
    #[serde(default = "default_stop_timeout", with = "duration")]
    pub stop_timeout: Duration,
}

fn default_stop_timeout() -> Duration {
    DEFAULT_STOP_TIMEOUT
}

impl ServiceConfig {
    pub(super) fn checks(&self) -> Checks {
        const KEY: &str = "workload.service.unit";
        let unit = &self.unit;
        let stem = unit.strip_suffix(".service").unwrap_or_default();
        // systemd.unit(5); a template without an instance is none to start.
        let is_name = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
        let is_plain = !stem.is_empty() && !stem.starts_with('-') && !stem.ends_with('@') && stem.chars().all(is_name);
        vec![match stem {
            _ if !is_plain => Err(format!(
                "{KEY} = {unit:?}: must be the name of a service, such as \"productcatalog.service\""
            )),
            _ if unit.len() > LONGEST_NAME => Err(format!(
                "{KEY} = {unit:?}: is longer than systemd allows, {LONGEST_NAME} characters"
            )),
            _ if stem.starts_with("systemd-") || SYSTEM.contains(&stem) => Err(format!(
                "{KEY} = {unit:?}: is the system's, and would be stopped with the mesh: name the application's"
            )),
            _ if stem.starts_with(OWN) => Err(format!("{KEY} = {unit:?}: is the agent's own: name the application's")),
            _ => Ok(()),
        }]
    }
}
