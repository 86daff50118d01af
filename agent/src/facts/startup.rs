//! Published by `app`: how long the start took, and what root has ordered since.

use std::time::Duration;

/// Durations of the start.
#[derive(Clone, Debug, Default)]
pub struct Startup {
    /// Phases in their order: the configuration, the join, then each part that is waited for.
    pub phases: Vec<(&'static str, Duration)>,
    /// Moments that have come about, in that order: name, and time since the start of the agent.
    pub moments: Vec<(&'static str, Duration)>,
    /// From the start of the agent until it was ready for the first time.
    pub ready: Option<Duration>,
}

/// An order to end, as Istio's agent takes it on port 15020.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Order {
    /// `/drain`: have callers go elsewhere and empty Envoy of connections, and stay.
    Drain,
    /// `/quitquitquit`: leave the mesh, and wait for no caller.
    Quit,
}
