//! The captured calls to this VM, kept for its next boot: the guard closes that before there is a network, an
//! address, or a bundle that anybody has looked at, and whatever has become of the bundle meanwhile.

use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::Options;
use super::capture::{Capture, Select};
use super::membership::{bridges, left_alone};
use super::rules::Ruleset;
use super::surroundings::Surroundings;
use crate::facts::Membership;
use crate::host::{Host, Read};

/// Twice a list of every port.
const MAX_BYTES: usize = 1 << 20;

#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Inbound {
    /// Absent: all.
    ports: Option<Vec<u16>>,
    exclude: Vec<u16>,
    /// Absent: an agent wrote it that knew of none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    interfaces: Vec<String>,
}

impl Inbound {
    pub(super) fn of(membership: &Membership) -> Self {
        Self {
            ports: membership.inbound_ports.clone(),
            exclude: super::membership::excluded_ports(membership),
            interfaces: membership.exclude_interfaces.clone(),
        }
    }

    /// Writes it down, unless it is.
    pub(super) fn keep(&self, host: &Host, path: &Path) -> Result<()> {
        if Self::load(host, path).is_ok_and(|kept| kept.as_ref() == Some(self)) {
            return Ok(());
        }
        let text = serde_json::to_string(self)?;
        host.write(path, &text, 0o600, None)
            .context("failed to keep what is closed at the next boot")
    }

    pub(super) fn load(host: &Host, path: &Path) -> Result<Option<Self>> {
        let text = host.read(path, Read::max(MAX_BYTES))?;
        text.map(|text| serde_json::from_str(&text))
            .transpose()
            .with_context(|| format!("{} is damaged", path.display()))
    }

    /// The rules that close it.
    pub(super) fn ruleset(self, options: &Options, surroundings: &Surroundings) -> Ruleset {
        let exclude = left_alone(self.ports.as_deref(), self.exclude, surroundings);
        let capture = Capture {
            inbound_ports_include: self.ports.map_or(Select::All, Select::Only),
            inbound_ports_exclude: exclude,
            bridges: bridges(options, surroundings, &self.interfaces),
            exclude_interfaces: self.interfaces,
            outbound: false,
            direct_uids: options.config.direct_uids.clone(),
            ephemeral_ports: surroundings.ephemeral_ports.clone(),
            ..Capture::default()
        };
        capture.rules()
    }
}
