//! Published by `control_plane`: which istiods there are, how they are, and which one is in use.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// All control planes, as `status` tells them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct ControlPlanes {
    /// `host:port` of the one that streams and certificates are asked of.
    pub current: String,
    /// The time since which that one is the current one.
    #[serde(with = "humantime_serde")]
    pub since: Option<SystemTime>,
    /// The reason why the agent turned to it; `None`: it was the first in order.
    pub reason: Option<String>,
    /// In order of preference.
    pub all: Vec<ControlPlane>,
}

/// One control plane.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ControlPlane {
    /// `host:port`.
    pub address: String,
    /// Health of the control plane; written as the keys `state` and `error` beside the address.
    #[serde(flatten)]
    pub health: ControlPlaneHealth,
    /// The time since which its health is that.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
}

/// The health of a control plane, as far as this VM knows it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ControlPlaneHealth {
    /// The control plane was not asked yet.
    Unknown,
    /// The control plane answered when it was asked last.
    #[serde(rename = "well")]
    Reachable,
    /// The control plane did not answer when it was asked last.
    #[serde(rename = "unwell")]
    Unreachable {
        /// The cause, and what to do.
        error: String,
    },
}
