//! What is told of Envoy. Of two it is the one that serves, and what its successor lacks.

use std::time::SystemTime;

use tokio::sync::watch;

use super::options::Options;
use super::process::ledger;
use crate::facts::{EnvoyState, Successor};

/// What is told.
pub(super) struct EnvoyStatePublisher {
    options: Options,
    state: watch::Sender<EnvoyState>,
}

impl EnvoyStatePublisher {
    pub(super) fn new(options: Options, state: watch::Sender<EnvoyState>) -> Self {
        Self { options, state }
    }

    /// The Envoy that was said to serve, if it still runs.
    pub(super) fn serving(&self) -> Option<u32> {
        let EnvoyState::Ready { pid, .. } = *self.state.borrow() else {
            return None;
        };
        ledger::is_ours(&self.options.host, &self.options.paths, pid).then_some(pid)
    }

    /// Whether there is no Envoy that serves or has served: one on its way out is left to be ended.
    pub(super) fn is_unserved(&self) -> bool {
        self.serving().is_none() && !self.is_draining()
    }

    /// Whether Envoy is on its way out.
    pub(super) fn is_draining(&self) -> bool {
        matches!(*self.state.borrow(), EnvoyState::Draining { .. })
    }

    /// Completes once another Envoy than `before` serves.
    pub(super) async fn wait_for_another(&self, before: u32) {
        let another = |state: &EnvoyState| matches!(*state, EnvoyState::Ready { pid, .. } if pid != before);
        // This very sender keeps the channel open.
        let _ = self.state.subscribe().wait_for(another).await;
    }

    /// Says that an Envoy serves; whether that is news.
    pub(super) fn ready(&self, pid: u32, adopted: bool, restarts: u32) -> bool {
        let successor = None;
        publish(
            &self.state,
            EnvoyState::Ready {
                pid,
                adopted,
                restarts,
                successor,
            },
        )
    }

    /// Says that `pid` serves until another one does.
    pub(super) fn ready_until_succeeded(&self, pid: u32) {
        if self.serving() != Some(pid) {
            self.ready(pid, true, 0);
        }
        self.update_successor(|_| {});
    }

    /// Says that the newest Envoy is not ready yet, and why if that is known.
    pub(super) fn starting(&self, pid: u32, lacks: Option<String>) {
        match self.serving() {
            // As in Istio, once is for ever.
            Some(serving) if serving == pid => {}
            Some(_) => {
                self.update_successor(|successor| successor.lacks = lacks);
            }
            None => {
                publish(&self.state, EnvoyState::Starting { pid });
            }
        }
    }

    /// Says that the newest Envoy, which may have no pid any more, serves nobody; whether that is news.
    pub(super) fn failing(&self, pid: Option<u32>, reason: String) -> bool {
        if self.serving().is_none_or(|serving| Some(serving) == pid) {
            return publish(&self.state, EnvoyState::Down { reason });
        }
        self.update_successor(|successor| (successor.failed, successor.lacks) = (Some(reason), None))
    }

    fn update_successor(&self, change: impl FnOnce(&mut Successor)) -> bool {
        self.state.send_if_modified(|state| {
            let EnvoyState::Ready { successor, .. } = state else {
                return false;
            };
            let before = successor.clone();
            change(successor.get_or_insert_with(|| Successor {
                since: SystemTime::now(),
                failed: None,
                lacks: None,
            }));
            *successor != before
        })
    }
}

/// Says how Envoy is, and tells whether that is news; that it is drained is the last word.
pub(super) fn publish(state: &watch::Sender<EnvoyState>, new: EnvoyState) -> bool {
    state.send_if_modified(|old| {
        let changed = !matches!(old, EnvoyState::Draining { .. }) && *old != new;
        if changed {
            *old = new;
        }
        changed
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{EnvoyConfig, PathsConfig};
    use crate::host::Host;

    #[test]
    fn a_start_that_fails_while_envoy_is_drained_leaves_it_to_the_drain() {
        let options = Options {
            host: Host::system(),
            config: EnvoyConfig::default(),
            paths: PathsConfig::default(),
            unit: None,
            published: Vec::new(),
            refusals: Default::default(),
        };
        let state = watch::Sender::new(EnvoyState::Waiting);
        let publisher = EnvoyStatePublisher::new(options, state.clone());
        assert!(publisher.is_unserved());
        state.send_replace(EnvoyState::Draining { pid: 1 });
        assert!(!publisher.is_unserved());
    }
}
