//! The selection of the current control plane: the one place that decides it, for streams and certificates alike.
//!
//! Those who use the current one report when it fails, and the agent turns at once to another that is reachable. The
//! others are asked every few seconds (`checks`). An earlier one in the operator's order takes over again when it
//! has been reachable without a break for `return_after` and as much again times a random part, drawn anew each time,
//! so that a thousand VMs don't turn at once. A check never turns the agent away from the current one: as long as its
//! streams run, they are the better judges.

mod state;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::facts::ControlPlanes;
use crate::supervise::Clock;

use state::SelectorState;

/// Longest time that an attempt may take while another control plane may do better.
pub const FAILOVER_TIMEOUT: Duration = Duration::from_secs(3);

/// The handle that all users of control planes share.
#[derive(Clone, Debug)]
pub struct ControlPlaneSelector {
    state: Arc<watch::Sender<SelectorState>>,
    clock: Clock,
}

impl ControlPlaneSelector {
    /// Selects among `addresses`, `host:port` in order of preference, at least one.
    pub fn new(addresses: Vec<String>, return_after: Duration, clock: Clock) -> Self {
        Self {
            state: Arc::new(watch::Sender::new(SelectorState::new(
                addresses,
                return_after,
                clock.now(),
            ))),
            clock,
        }
    }

    /// The current one's address.
    pub fn current(&self) -> String {
        self.state.borrow().current().to_owned()
    }

    /// All addresses, the current one first, then from the best known to the worst.
    pub fn candidates(&self) -> Vec<String> {
        self.state.borrow().by_preference()
    }

    /// Number of control planes.
    pub fn count(&self) -> usize {
        self.state.borrow().count()
    }

    /// True when another one than `address` is not known to be unreachable.
    pub fn has_fallback_for(&self, address: &str) -> bool {
        self.state.borrow().has_fallback_for(address)
    }

    /// Reports that `address` answered.
    pub fn mark_reachable(&self, address: &str) {
        self.state
            .send_if_modified(|state| state.mark_reachable(address, Instant::now(), self.clock.now()));
    }

    /// Reports that `address` did not answer: if it is the current one, another is from now on.
    pub fn mark_unreachable(&self, address: &str, error: &anyhow::Error) {
        let error = format!("{error:#}");
        self.state
            .send_if_modified(|state| state.mark_unreachable(address, error, self.clock.now()));
    }

    /// Selects among these addresses from now on.
    pub fn replace(&self, addresses: Vec<String>) {
        self.state
            .send_if_modified(|state| state.replace(addresses, self.clock.now()));
    }

    /// A receiver that changes whenever the current one, or the health of any, changes.
    pub fn subscribe(&self) -> watch::Receiver<SelectorState> {
        self.state.subscribe()
    }

    /// All of them as `status` tells them.
    pub fn facts(&self) -> ControlPlanes {
        self.state.borrow().facts()
    }
}

#[cfg(test)]
mod tests;
