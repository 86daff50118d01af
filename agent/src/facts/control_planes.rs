//! Published by `control_plane`: which istiods there are, how they are, and which one is in use.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// All that `status` tells of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default)]
pub struct ControlPlanes {
    /// `host:port` of the one that streams and certificates are asked of.
    pub current: String,
    /// Since when it is that one.
    #[serde(with = "humantime_serde")]
    pub since: Option<SystemTime>,
    /// Why the agent turned to it; `None`: it was the first choice.
    pub reason: Option<String>,
    /// In order of preference.
    pub all: Vec<ControlPlane>,
}

/// One of them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct ControlPlane {
    /// `host:port`.
    pub address: String,
    /// How it is.
    #[serde(flatten)]
    pub standing: Standing,
    /// Since when.
    #[serde(with = "humantime_serde")]
    pub since: SystemTime,
}

/// How a control plane is.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Standing {
    /// Not asked yet.
    Unknown,
    /// It answers.
    Well,
    /// It doesn't.
    Unwell {
        /// Why, and what to do.
        error: String,
    },
}
