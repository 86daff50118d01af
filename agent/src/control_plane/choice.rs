//! Which control plane is the current one: the one place that decides it, for streams and certificates alike.
//!
//! Those who use the current one say when it fails, and the agent turns at once to another that is well. The
//! others are asked every few seconds (`checks`). An earlier one in the operator's order takes over again when it
//! has been well without a break for `return_after` and as much again times a random part, drawn anew each time, so
//! that a thousand VMs don't turn at once. A check never turns the agent away from the current one: as long as its
//! streams run, they are the better judges.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::facts::{ControlPlane, ControlPlanes, Standing};
use crate::supervise::Clock;

/// Longest that a try may take while another control plane may do better.
pub const HASTE: Duration = Duration::from_secs(3);

/// The handle that the users of control planes share.
#[derive(Clone, Debug)]
pub struct Choice {
    rule: Arc<watch::Sender<Rule>>,
    clock: Clock,
}

impl Choice {
    /// The choice among `addresses`, `host:port` in order of preference, at least one.
    pub fn new(addresses: Vec<String>, return_after: Duration, clock: Clock) -> Self {
        Self {
            rule: Arc::new(watch::Sender::new(Rule::new(addresses, return_after, clock.now()))),
            clock,
        }
    }

    /// The current one's address.
    pub fn current(&self) -> String {
        self.rule.borrow().current().address.clone()
    }

    /// All addresses, the current one first, then from the best known to the worst.
    pub fn candidates(&self) -> Vec<String> {
        self.rule.borrow().candidates()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.rule.borrow().known.len()
    }

    /// Whether there is another one than `address` that is not known to be unwell.
    pub fn has_refuge_from(&self, address: &str) -> bool {
        let rule = self.rule.borrow();
        rule.known
            .iter()
            .any(|other| other.address != address && !other.is_unwell())
    }

    /// It answered.
    pub fn well(&self, address: &str) {
        self.rule
            .send_if_modified(|rule| rule.well(address, Instant::now(), self.clock.now()));
    }

    /// It did not: if it is the current one, another is from now on.
    pub fn failed(&self, address: &str, error: &anyhow::Error) {
        let error = format!("{error:#}");
        self.rule
            .send_if_modified(|rule| rule.failed(address, error, self.clock.now()));
    }

    /// From now on these are the addresses.
    pub fn replace(&self, addresses: Vec<String>) {
        self.rule
            .send_if_modified(|rule| rule.replace(addresses, self.clock.now()));
    }

    /// Changes whenever the current one or what is known of any changes.
    pub fn subscribe(&self) -> watch::Receiver<Rule> {
        self.rule.subscribe()
    }

    /// What `status` tells.
    pub fn facts(&self) -> ControlPlanes {
        self.rule.borrow().facts()
    }
}

/// What is known, and what follows from it. Pure but for the dice.
#[derive(Debug)]
pub struct Rule {
    known: Vec<Known>,
    current: usize,
    since: SystemTime,
    reason: Option<String>,
    return_after: Duration,
}

#[derive(Debug)]
struct Known {
    address: String,
    standing: Standing,
    since: SystemTime,
    /// When it may take over from a later one, while it is well.
    home_at: Option<Instant>,
}

impl Known {
    fn new(address: String, at: SystemTime) -> Self {
        Self {
            address,
            standing: Standing::Unknown,
            since: at,
            home_at: None,
        }
    }

    fn is_unwell(&self) -> bool {
        matches!(self.standing, Standing::Unwell { .. })
    }
}

impl Rule {
    fn new(addresses: Vec<String>, return_after: Duration, at: SystemTime) -> Self {
        Self {
            known: addresses.into_iter().map(|address| Known::new(address, at)).collect(),
            current: 0,
            since: at,
            reason: None,
            return_after,
        }
    }

    fn current(&self) -> &Known {
        &self.known[self.current]
    }

    fn candidates(&self) -> Vec<String> {
        let mut order: Vec<usize> = (0..self.known.len()).collect();
        order.sort_by_key(|&index| match self.known[index].standing {
            _ if index == self.current => 0,
            Standing::Well => 1,
            Standing::Unknown => 2,
            Standing::Unwell { .. } => 3,
        });
        order
            .into_iter()
            .map(|index| self.known[index].address.clone())
            .collect()
    }

    fn well(&mut self, address: &str, now: Instant, at: SystemTime) -> bool {
        let Some(index) = self.position(address) else {
            return false;
        };
        let (return_after, known) = (self.return_after, &mut self.known[index]);
        let news = known.standing != Standing::Well;
        if news {
            known.standing = Standing::Well;
            known.since = at;
            known.home_at = Some(now + return_after.mul_f64(1.0 + fastrand::f64()));
        }
        let turned = if self.current().is_unwell() {
            self.turn(index, "it is the first to answer again".to_owned(), at)
        } else {
            self.go_home(now, at)
        };
        news || turned
    }

    /// Turns to the first one before the current one that has been well for long enough.
    fn go_home(&mut self, now: Instant, at: SystemTime) -> bool {
        let earlier = &self.known[..self.current];
        let Some(home) = earlier
            .iter()
            .position(|known| known.home_at.is_some_and(|due| due <= now))
        else {
            return false;
        };
        let well_for = at.duration_since(self.known[home].since).unwrap_or_default();
        let well_for = humantime::format_duration(Duration::from_secs(well_for.as_secs()));
        self.turn(home, format!("it is preferred, and has been well for {well_for}"), at)
    }

    fn failed(&mut self, address: &str, error: String, at: SystemTime) -> bool {
        let Some(index) = self.position(address) else {
            return false;
        };
        // It names the address.
        let reason = error.clone();
        let known = &mut self.known[index];
        if !known.is_unwell() {
            known.since = at;
        }
        let unwell = Standing::Unwell { error };
        let news = known.standing != unwell;
        known.standing = unwell;
        known.home_at = None;
        let turned = index == self.current && self.turn(self.refuge(), reason, at);
        news || turned
    }

    /// The first one that is well, else the first that may be, else the next: each has its turn then.
    fn refuge(&self) -> usize {
        let first = |standing: &Standing| self.known.iter().position(|known| known.standing == *standing);
        first(&Standing::Well)
            .or_else(|| first(&Standing::Unknown))
            .unwrap_or((self.current + 1) % self.known.len())
    }

    fn replace(&mut self, addresses: Vec<String>, at: SystemTime) -> bool {
        if addresses.iter().eq(self.known.iter().map(|known| &known.address)) {
            return false;
        }
        let mut old = std::mem::take(&mut self.known);
        let was = old[self.current].address.clone();
        self.known = addresses
            .into_iter()
            .map(|address| match old.iter().position(|known| known.address == address) {
                Some(index) => old.swap_remove(index),
                None => Known::new(address, at),
            })
            .collect();
        match self.position(&was) {
            Some(index) => self.current = index,
            None => {
                self.current = self.refuge_of_none();
                self.note_turn(&was, format!("{was} is no longer a control plane of this mesh"), at);
            }
        }
        true
    }

    /// Where to begin when the current one is none of the addresses any more.
    fn refuge_of_none(&self) -> usize {
        let best = self.known.iter().position(|known| !known.is_unwell());
        best.unwrap_or_default()
    }

    fn turn(&mut self, to: usize, reason: String, at: SystemTime) -> bool {
        if to == self.current {
            return false;
        }
        let from = self.current().address.clone();
        self.current = to;
        self.note_turn(&from, reason, at);
        true
    }

    fn note_turn(&mut self, from: &str, reason: String, at: SystemTime) {
        let to = self.current();
        if to.is_unwell() {
            // None is well: each is tried in turn, and that is no event.
            tracing::debug!(from, to = to.address, "trying the next control plane: {reason}");
        } else {
            tracing::info!(from, to = to.address, "turned to another control plane: {reason}");
        }
        self.since = at;
        self.reason = Some(reason);
    }

    fn position(&self, address: &str) -> Option<usize> {
        self.known.iter().position(|known| known.address == address)
    }

    fn facts(&self) -> ControlPlanes {
        let all = self.known.iter().map(|known| ControlPlane {
            address: known.address.clone(),
            standing: known.standing.clone(),
            since: known.since,
        });
        ControlPlanes {
            current: self.current().address.clone(),
            since: Some(self.since),
            reason: self.reason.clone(),
            all: all.collect(),
        }
    }
}

#[cfg(test)]
mod tests;
