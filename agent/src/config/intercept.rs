//! `[intercept]`.

use serde::{Deserialize, Serialize};

/// `[intercept]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct InterceptConfig {
    /// The backend that carries the rules.
    pub backend: Backend,
    /// The fate of traffic while Envoy is dead.
    pub on_envoy_down: OnEnvoyDown,
    /// Users of this VM, by number, whose calls to the application don't go through Envoy; root's never do.
    pub direct_uids: Vec<u32>,
}

/// The backend that carries the rules.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// nftables where the kernel can, else iptables.
    #[default]
    Auto,
    /// Istio's ISTIO_* chains.
    Iptables,
    /// One table of our own.
    Nftables,
    /// No rules; the operator redirects.
    None,
}

/// Per direction.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct OnEnvoyDown {
    /// Calls to this VM.
    pub inbound: FailPolicy,
    /// Calls from this VM.
    pub outbound: FailPolicy,
}

/// The fate of traffic while Envoy is dead.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FailPolicy {
    /// Traffic is refused.
    #[default]
    Closed,
    /// Traffic goes past the mesh.
    Open,
}
