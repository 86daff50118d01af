//! Writes `XdsState`, and a log line for each of its changes.

use std::mem;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::facts::{Nack, SnapshotUse, XdsCounts, XdsState, date};
use crate::supervise::Clock;

/// Shortest time between two responses that are told.
const NEWS: Duration = Duration::from_secs(1);

/// The one writer of `XdsState`.
#[derive(Debug)]
pub(super) struct Report {
    state: watch::Sender<XdsState>,
    counts: XdsCounts,
    clock: Clock,
}

impl Report {
    pub(super) fn new(state: watch::Sender<XdsState>, counts: XdsCounts, clock: Clock) -> Self {
        Self { state, counts, clock }
    }

    /// The state as it is told.
    pub(super) fn subscribe(&self) -> watch::Receiver<XdsState> {
        self.state.subscribe()
    }

    /// The agent takes over from an earlier one, or has done so as far as istiod is concerned.
    pub(super) fn takes_over(&self, takes_over: bool) {
        self.state
            .send_if_modified(|state| mem::replace(&mut state.takes_over, takes_over) != takes_over);
    }

    /// Envoy opened a stream.
    pub(super) fn envoy_connected(&self) {
        tracing::info!("Envoy opened its stream");
        self.state.send_modify(|state| state.envoy_connected = true);
    }

    /// Envoy's stream ended, and with it the one to istiod.
    pub(super) fn envoy_disconnected(&self, reason: &str) {
        tracing::info!(reason, "Envoy's stream ended");
        self.counts.envoy_disconnections.inc();
        self.state.send_modify(|state| {
            state.envoy_connected = false;
            state.snapshot = None;
            if self.down(state) {
                state.last_error = Some(format!("Envoy's stream, with which istiod's goes, ended: {reason}"));
            }
        });
    }

    /// istiod answered.
    pub(super) fn connected(&self, address: &str) {
        tracing::info!(address, "istiod answered");
        self.state.send_modify(|state| {
            state.connected_to = Some(address.to_owned());
            state.since = Some(self.clock.now());
            state.last_error = None;
            state.snapshot = None;
        });
    }

    /// Envoy is served from what was kept at `written`.
    pub(super) fn serves_snapshot(&self, written: SystemTime) {
        self.state.send_if_modified(|state| {
            let is_news = state.snapshot.is_none();
            if is_news {
                tracing::warn!(
                    "no istiod answers: Envoy is served from what it accepted last, kept at {}",
                    date(written)
                );
                state.snapshot = Some(SnapshotUse {
                    since: self.clock.now(),
                    written,
                    until: None,
                });
            }
            is_news
        });
    }

    /// Publishes that Envoy's configuration is not kept, or that the kept one is not used.
    pub(super) fn snapshot_problem(&self, problem: String) {
        self.state.send_if_modified(|state| {
            let is_news = state.snapshot_problem.as_ref() != Some(&problem);
            if is_news {
                tracing::warn!("{problem}");
                state.snapshot_problem = Some(problem);
            }
            is_news
        });
    }

    /// Publishes that Envoy's configuration is kept.
    pub(super) fn snapshot_usable(&self) {
        self.state
            .send_if_modified(|state| state.snapshot_problem.take().is_some());
    }

    /// An attempt failed, or the stream to istiod ended.
    pub(super) fn failed(&self, error: &anyhow::Error) {
        let error = format!("{error:#}");
        self.state.send_if_modified(|state| {
            if state.connected_to.is_none() {
                self.counts.connection_failures.inc();
            }
            // The same failure again is worth no second line.
            let news = state.last_error.as_ref() != Some(&error);
            if news {
                tracing::warn!("no stream to istiod: {error}");
                state.last_error = Some(error);
            }
            self.down(state) || news
        });
    }

    fn down(&self, state: &mut XdsState) -> bool {
        let was_up = state.connected_to.take().is_some();
        if was_up {
            self.counts.istiod_disconnections.inc();
        }
        if was_up || state.since.is_none() {
            state.since = Some(self.clock.now());
        }
        was_up
    }

    /// A response came; told once a second, for a busy mesh has many.
    pub(super) fn pushed(&self) {
        let now = self.clock.now();
        self.counts.responses.inc();
        self.state.send_if_modified(|state| {
            let is_news = state
                .last_push
                .is_none_or(|last| now.duration_since(last).is_ok_and(|age| age >= NEWS));
            if is_news {
                state.last_push = Some(now);
            }
            is_news
        });
    }

    /// A name table of this many hosts came.
    pub(super) fn names(&self, hosts: usize) {
        self.state
            .send_if_modified(|state| state.names.replace(hosts) != Some(hosts));
    }

    /// Endpoints of these clusters came, true for those in which this VM is one.
    pub(super) fn endpoints(&self, clusters: Vec<(String, bool)>) {
        self.state.send_if_modified(|state| {
            let is_first = !mem::replace(&mut state.endpoints_heard, true);
            clusters
                .into_iter()
                .fold(is_first, |is_news, (cluster, listed)| match listed {
                    true => state.listed_in.insert(cluster) || is_news,
                    false => state.listed_in.remove(&cluster) || is_news,
                })
        });
    }

    /// Envoy asks for endpoints of these clusters and no other: of the rest no message will come.
    pub(super) fn endpoints_wanted(&self, is_wanted: impl Fn(&str) -> bool) {
        self.state.send_if_modified(|state| {
            let before = state.listed_in.len();
            state.listed_in.retain(|cluster| is_wanted(cluster));
            state.listed_in.len() < before
        });
    }

    /// Envoy refused a response of this type.
    pub(super) fn refused(&self, type_url: &str, message: String) {
        let kind = short(type_url);
        self.counts.refusals.inc();
        self.state.send_modify(|state| {
            let known = state
                .nacks
                .iter()
                .any(|nack| nack.kind == kind && nack.message == message);
            // istiod sends it again with each push, and Envoy refuses it again.
            if !known {
                tracing::warn!(
                    kind,
                    "Envoy refused istiod's configuration and keeps what it had: {message}"
                );
            }
            state.nacks.retain(|nack| nack.kind != kind);
            state.nacks.push(Nack {
                kind: kind.to_owned(),
                message,
                at: self.clock.now(),
            });
        });
    }

    /// Envoy accepted a response of this type.
    pub(super) fn accepted(&self, type_url: &str) {
        let kind = short(type_url);
        self.state.send_if_modified(|state| {
            let before = state.nacks.len();
            state.nacks.retain(|nack| nack.kind != kind);
            let cleared = state.nacks.len() < before;
            if cleared {
                tracing::info!(kind, "Envoy accepted istiod's configuration again");
            }
            let first = kind == "Listener" && !mem::replace(&mut state.has_listeners, true);
            cleared || first
        });
    }
}

/// `Listener` of `type.googleapis.com/envoy.config.listener.v3.Listener`.
fn short(type_url: &str) -> &str {
    type_url.rsplit(['.', '/']).next().unwrap_or(type_url)
}
