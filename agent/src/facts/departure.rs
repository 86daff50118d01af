//! The VM's way out of the mesh.

use tokio::time::Instant;

/// State of the VM on its way out of the mesh. Published by `xds`.
///
/// ```text
///            stop, istiod is told        out of the endpoints        propagated
/// Staying ──────────────▶ Announced ─────────────────▶ Propagating ───────────▶ Over
///    │                        │ still in them after 5 s    ▲                      ▲
///    │ stop, no health check  ▼                            │ istiod's grace       │
///    ├────────────────────▶ HungUp ────────────────────────┘                      │
///    └────────────────────────────────────────────────────────────────────────────┘
///       stop, and istiod can't be told; or, from anywhere, there is no time
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum Departure {
    /// Nobody has asked the VM to leave.
    #[default]
    Staying,
    /// istiod is told that the VM is unhealthy, and is waited for to take it out of the endpoints.
    Announced,
    /// The stream to istiod is closed, after which istiod takes the VM out of the endpoints in its own time.
    HungUp,
    /// istiod has taken the VM out; the mesh's other proxies are given time to hear of it.
    Propagating,
    /// Envoy is drained from here on.
    Over {
        /// Reason for which callers were not told before; `None` when they were.
        unannounced: Option<String>,
    },
}

impl Departure {
    /// True once the VM is to be called no more.
    pub fn is_leaving(&self) -> bool {
        *self != Self::Staying
    }
}

/// The notice by which a cloud takes the VM away. Published by `host_events`.
#[derive(Clone, Debug)]
pub struct Eviction {
    /// Who takes it, in words.
    pub reason: String,
    /// Time at which the agent heard of it.
    pub at: Instant,
}
