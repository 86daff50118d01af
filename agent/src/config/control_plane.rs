//! `[control_plane]`.

use std::time::Duration;

use humantime::format_duration;
use serde::{Deserialize, Serialize};

use super::{Checks, duration};
use crate::facts::HostPort;

/// A VM that has turned to another control plane is to be back within a day.
const LONGEST_RETURN: Duration = Duration::from_secs(24 * 60 * 60);

/// `[control_plane]`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ControlPlaneConfig {
    /// `host:port` in order of preference; empty: mesh.yaml's discoveryAddress.
    pub addresses: Vec<String>,
    /// Time that an earlier one must have been well before the agent turns back to it; as much again is the most
    /// that chance adds.
    #[serde(with = "duration")]
    pub return_after: Duration,
    /// Time given to all proxies of the mesh to hear that this VM leaves, from when istiod has told this VM's own.
    #[serde(with = "duration")]
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
    pub(super) fn checks(&self) -> Checks {
        const KEY: &str = "control_plane.addresses";
        let range = Duration::from_secs(1)..=LONGEST_RETURN;
        let mut checks = vec![match range.contains(&self.return_after) {
            true => Ok(()),
            false => Err(format!(
                "control_plane.return_after = \"{}\": must be from 1s to {}, such as \"1m\"",
                format_duration(self.return_after),
                format_duration(LONGEST_RETURN)
            )),
        }];
        for (index, address) in self.addresses.iter().enumerate() {
            let port = HostPort::check_encrypted(address).map(drop);
            checks.push(port.map_err(|error| format!("{KEY}: {error}")));
            let mut earlier = self.addresses.iter().take(index);
            if earlier.any(|earlier| earlier.eq_ignore_ascii_case(address)) {
                checks.push(Err(format!("{KEY}: {address:?} is there twice: remove one of them")));
            }
        }
        checks
    }
}
