//! The candidates, how each is, and which one follows from that. Pure but for the dice.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use crate::facts::{ControlPlane, ControlPlaneHealth, ControlPlanes};

/// All candidates and the current one among them.
#[derive(Debug)]
pub struct SelectorState {
    /// In order of preference.
    candidates: Vec<Candidate>,
    /// Index of the current one.
    current: usize,
    /// The time since which it is the current one.
    since: SystemTime,
    /// The reason why the agent turned to it; `None`: it was the first.
    reason: Option<String>,
    return_after: Duration,
}

#[derive(Debug)]
struct Candidate {
    address: String,
    health: ControlPlaneHealth,
    /// The time since which its health is that.
    since: SystemTime,
    /// The time from which on it may take over from a later one, while it is reachable.
    failback_at: Option<Instant>,
}

impl Candidate {
    fn new(address: String, at: SystemTime) -> Self {
        Self {
            address,
            health: ControlPlaneHealth::Unknown,
            since: at,
            failback_at: None,
        }
    }

    fn is_unreachable(&self) -> bool {
        matches!(self.health, ControlPlaneHealth::Unreachable { .. })
    }
}

impl SelectorState {
    pub(super) fn new(addresses: Vec<String>, return_after: Duration, at: SystemTime) -> Self {
        Self {
            candidates: addresses
                .into_iter()
                .map(|address| Candidate::new(address, at))
                .collect(),
            current: 0,
            since: at,
            reason: None,
            return_after,
        }
    }

    pub(super) fn current(&self) -> &str {
        &self.candidates[self.current].address
    }

    pub(super) fn count(&self) -> usize {
        self.candidates.len()
    }

    pub(super) fn has_fallback_for(&self, address: &str) -> bool {
        self.candidates
            .iter()
            .any(|other| other.address != address && !other.is_unreachable())
    }

    pub(super) fn by_preference(&self) -> Vec<String> {
        let mut order: Vec<usize> = (0..self.candidates.len()).collect();
        order.sort_by_key(|&index| match self.candidates[index].health {
            _ if index == self.current => 0,
            ControlPlaneHealth::Reachable => 1,
            ControlPlaneHealth::Unknown => 2,
            ControlPlaneHealth::Unreachable { .. } => 3,
        });
        order
            .into_iter()
            .map(|index| self.candidates[index].address.clone())
            .collect()
    }

    /// Returns true when this changed anything.
    pub(super) fn mark_reachable(&mut self, address: &str, now: Instant, at: SystemTime) -> bool {
        let Some(index) = self.position(address) else {
            return false;
        };
        let (return_after, candidate) = (self.return_after, &mut self.candidates[index]);
        let is_new = candidate.health != ControlPlaneHealth::Reachable;
        if is_new {
            candidate.health = ControlPlaneHealth::Reachable;
            candidate.since = at;
            candidate.failback_at = Some(now + return_after.mul_f64(1.0 + fastrand::f64()));
        }
        let turned = if self.candidates[self.current].is_unreachable() {
            self.turn(index, "it is the first to answer again".to_owned(), at)
        } else {
            self.fail_back(now, at)
        };
        is_new || turned
    }

    /// Turns to the first one before the current one that has been reachable for long enough.
    fn fail_back(&mut self, now: Instant, at: SystemTime) -> bool {
        let earlier = &self.candidates[..self.current];
        let Some(preferred) = earlier
            .iter()
            .position(|candidate| candidate.failback_at.is_some_and(|due| due <= now))
        else {
            return false;
        };
        let since = self.candidates[preferred].since;
        let well_for = Duration::from_secs(at.duration_since(since).unwrap_or_default().as_secs());
        let well_for = humantime::format_duration(well_for);
        self.turn(
            preferred,
            format!("it is preferred, and has been well for {well_for}"),
            at,
        )
    }

    /// Returns true when this changed anything.
    pub(super) fn mark_unreachable(&mut self, address: &str, error: String, at: SystemTime) -> bool {
        let Some(index) = self.position(address) else {
            return false;
        };
        // The error names the address.
        let reason = error.clone();
        let candidate = &mut self.candidates[index];
        if !candidate.is_unreachable() {
            candidate.since = at;
        }
        let unreachable = ControlPlaneHealth::Unreachable { error };
        let is_new = candidate.health != unreachable;
        candidate.health = unreachable;
        candidate.failback_at = None;
        let turned = index == self.current && self.turn(self.fallback(), reason, at);
        is_new || turned
    }

    /// The first one that is reachable, else the first that may be, else the next: each has its turn then.
    fn fallback(&self) -> usize {
        let first = |health: &ControlPlaneHealth| {
            let mut candidates = self.candidates.iter();
            candidates.position(|candidate| candidate.health == *health)
        };
        first(&ControlPlaneHealth::Reachable)
            .or_else(|| first(&ControlPlaneHealth::Unknown))
            .unwrap_or((self.current + 1) % self.candidates.len())
    }

    /// Returns true when this changed anything.
    pub(super) fn replace(&mut self, addresses: Vec<String>, at: SystemTime) -> bool {
        if addresses
            .iter()
            .eq(self.candidates.iter().map(|candidate| &candidate.address))
        {
            return false;
        }
        let mut old = std::mem::take(&mut self.candidates);
        let was = old[self.current].address.clone();
        self.candidates = addresses
            .into_iter()
            .map(
                |address| match old.iter().position(|candidate| candidate.address == address) {
                    Some(index) => old.swap_remove(index),
                    None => Candidate::new(address, at),
                },
            )
            .collect();
        match self.position(&was) {
            Some(index) => self.current = index,
            None => {
                let mut candidates = self.candidates.iter();
                let usable = candidates.position(|candidate| !candidate.is_unreachable());
                self.current = usable.unwrap_or_default();
                self.note_turn(&was, format!("{was} is no longer a control plane of this mesh"), at);
            }
        }
        true
    }

    fn turn(&mut self, to: usize, reason: String, at: SystemTime) -> bool {
        if to == self.current {
            return false;
        }
        let from = self.current().to_owned();
        self.current = to;
        self.note_turn(&from, reason, at);
        true
    }

    fn note_turn(&mut self, from: &str, reason: String, at: SystemTime) {
        let to = &self.candidates[self.current];
        if to.is_unreachable() {
            // None is reachable: each is tried in turn, and that is no event.
            tracing::debug!(from, to = to.address, "trying the next control plane: {reason}");
        } else {
            tracing::info!(from, to = to.address, "turned to another control plane: {reason}");
        }
        self.since = at;
        self.reason = Some(reason);
    }

    fn position(&self, address: &str) -> Option<usize> {
        let mut candidates = self.candidates.iter();
        candidates.position(|candidate| candidate.address == address)
    }

    pub(super) fn facts(&self) -> ControlPlanes {
        let all = self.candidates.iter().map(|candidate| ControlPlane {
            address: candidate.address.clone(),
            health: candidate.health.clone(),
            since: candidate.since,
        });
        ControlPlanes {
            current: self.current().to_owned(),
            since: Some(self.since),
            reason: self.reason.clone(),
            all: all.collect(),
        }
    }
}
