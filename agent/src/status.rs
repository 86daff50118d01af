//! What `status` says: one document, from the running agent over its unix socket, or put together from
//! what is on the host when no agent answers.
//!
//! Also the agent's HTTP face: `/healthz/ready` on 15020 for Envoy's readiness listener.

mod client;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod http;
mod server;
mod text;

use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::bounds::Refused;
use crate::facts::{
    ContainerState, ControlPlanes, Credentials, EnvoyState, Health, InterceptState, ProbeState, Proven, XdsState,
};

pub use client::{PATIENTLY, PROMPTLY, ask};
pub use server::serve;

/// The whole of it. Times are UTC.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Status {
    /// Whether a running agent says this, or why it was put together without one.
    pub agent: Agent,
    /// The verdict.
    pub health: Health,
    /// Key and certificate; `None` before the first.
    pub identity: Option<IdentityStatus>,
    /// Which istiods there are, and which one is in use.
    #[serde(default)]
    pub control_planes: ControlPlanes,
    /// The stream to istiod.
    pub xds: XdsState,
    /// The proxy.
    pub envoy: EnvoyState,
    /// The rules.
    pub interception: InterceptState,
    /// The application's container.
    pub container: ContainerState,
    /// The application, by its probe.
    pub probe: ProbeState,
    /// What was turned away because a bound was reached.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// Who speaks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum Agent {
    /// No agent answered; the rest is what the host shows.
    NotAnswering {
        /// `not running`, or that it is stuck.
        reason: String,
    },
    /// The agent itself, while it isn't known yet who this VM is.
    Joining {
        /// Its version.
        version: String,
        /// Its pid.
        pid: u32,
        /// When it started.
        #[serde(with = "humantime_serde")]
        since: SystemTime,
        /// What it waits for.
        source: String,
    },
    /// The agent itself.
    Running {
        /// Its version.
        version: String,
        /// Its pid.
        pid: u32,
        /// When it started.
        #[serde(with = "humantime_serde")]
        since: SystemTime,
        /// Name in the mesh.
        node: String,
        /// Where it gets its configuration.
        control_plane: String,
    },
}

/// The certificate, without the key.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct IdentityStatus {
    /// `spiffe://…`.
    pub spiffe_id: String,
    /// Lower-case hex.
    pub serial: String,
    /// Start of validity.
    #[serde(with = "humantime_serde")]
    pub not_before: SystemTime,
    /// End of validity.
    #[serde(with = "humantime_serde")]
    pub not_after: SystemTime,
    /// What the CA gave it for, and when.
    #[serde(default)]
    pub proven: Option<Proven>,
}

impl Default for Agent {
    fn default() -> Self {
        Self::NotAnswering {
            reason: "not running".to_owned(),
        }
    }
}

impl From<&Credentials> for IdentityStatus {
    fn from(credentials: &Credentials) -> Self {
        Self {
            spiffe_id: credentials.spiffe_id.to_string(),
            serial: credentials.serial.clone(),
            not_before: credentials.not_before,
            not_after: credentials.not_after,
            proven: credentials.proven.clone(),
        }
    }
}

impl Status {
    /// For people.
    pub fn to_text(&self, now: SystemTime) -> String {
        text::render(self, now)
    }
}
