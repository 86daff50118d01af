//! The wall clock, replaceable.

use std::time::SystemTime;

use tokio::time::Instant;

/// Tells the time of day. Certificates are judged by it, so tests must be able to turn it.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    /// Runs with tokio's time, which tests pause, from a given moment.
    Tokio {
        /// The time at `started`.
        base: SystemTime,
        /// Tokio's time then.
        started: Instant,
    },
    /// The machine's, jumps included.
    System,
}

impl Clock {
    /// A clock that is `base` now and runs with tokio's time.
    pub fn starting_at(base: SystemTime) -> Self {
        Self::Tokio {
            base,
            started: Instant::now(),
        }
    }

    /// The time.
    pub fn now(&self) -> SystemTime {
        match self {
            Self::Tokio { base, started } => *base + started.elapsed(),
            Self::System => SystemTime::now(),
        }
    }
}
