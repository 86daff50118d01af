//! The publisher of `EnvoyState`. Of two Envoys the one that serves is told, and its successor as a part of that.
//!
//! ```text
//! Waiting ─ the program is not here ─► Fetching
//! Waiting, Fetching, Down ─ an Envoy runs ─► Starting ─ it is ready ─► Ready
//! Starting, Ready ─ it dies, or is stuck ─► Down
//! Ready ─ another Envoy is wanted ─► Ready with a successor, and what that lacks or how it failed
//! Ready with a successor ─ that is ready ─► Ready, of the successor
//! Ready with a successor ─ the one that serves dies ─► Starting or Down, of the successor
//! any of them ─ the agent drains ─► Draining ─ Envoy's task ends ─► Down
//! ```

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::watch;

use super::options::Options;
use super::process::ledger;
use crate::facts::{EnvoyState, Successor};

/// Publishes how Envoy is. A method that publishes a state is named after it.
pub(super) struct EnvoyStatePublisher {
    options: Options,
    state: watch::Sender<EnvoyState>,
    /// Why the last Envoy ended, while none has served since.
    ended: Mutex<Option<String>>,
}

impl EnvoyStatePublisher {
    pub(super) fn new(options: Options, state: watch::Sender<EnvoyState>) -> Self {
        Self {
            options,
            state,
            ended: Mutex::default(),
        }
    }

    /// The pid of the Envoy that was last published as ready, if it still runs.
    pub(super) fn serving(&self) -> Option<u32> {
        let EnvoyState::Ready { pid, .. } = *self.state.borrow() else {
            return None;
        };
        ledger::is_ours(&self.options.host, &self.options.paths, pid).then_some(pid)
    }

    /// The states from now on.
    pub(super) fn subscribe(&self) -> watch::Receiver<EnvoyState> {
        self.state.subscribe()
    }

    /// True while no Envoy serves, and none is left to be drained.
    pub(super) fn is_unserved(&self) -> bool {
        self.serving().is_none() && !self.is_draining()
    }

    /// True once Envoy is on its way out.
    pub(super) fn is_draining(&self) -> bool {
        matches!(*self.state.borrow(), EnvoyState::Draining { .. })
    }

    /// Completes once another Envoy than `old` serves.
    pub(super) async fn wait_for_another(&self, old: u32) {
        let another = |state: &EnvoyState| matches!(*state, EnvoyState::Ready { pid, .. } if pid != old);
        // This very sender keeps the channel open.
        let _ = self.state.subscribe().wait_for(another).await;
    }

    /// Publishes that the program is not here yet, and how far the fetch of it is.
    pub(super) fn fetching(&self, progress: String) {
        self.publish(EnvoyState::Fetching { progress });
    }

    /// Publishes that the newest Envoy is not ready yet, and what it lacks if that is known.
    pub(super) fn starting(&self, pid: u32, lacks: Option<String>) {
        match self.serving() {
            // As in Istio, once is for ever.
            Some(serving) if serving == pid => {}
            Some(_) => {
                self.update_successor(|successor| successor.lacks = lacks);
            }
            None => {
                let ended = self.ended().clone();
                self.publish(EnvoyState::Starting { pid, ended });
            }
        }
    }

    /// Publishes that an Envoy serves; true when that is news.
    pub(super) fn ready(&self, pid: u32, adopted: bool, restarts: u32) -> bool {
        self.ended().take();
        self.publish(EnvoyState::Ready {
            pid,
            adopted,
            restarts,
            successor: None,
        })
    }

    /// Publishes that the Envoy `pid` serves until another one does.
    pub(super) fn ready_until_succeeded(&self, pid: u32) {
        if self.serving() != Some(pid) {
            self.ready(pid, true, 0);
        }
        self.update_successor(|_| {});
    }

    /// Publishes that the newest Envoy serves nobody; true when that is news. `pid` is `None` when it has ended.
    pub(super) fn down(&self, pid: Option<u32>, reason: String) -> bool {
        if self.serving().is_none_or(|serving| Some(serving) == pid) {
            if pid.is_none() {
                *self.ended() = Some(reason.clone());
            }
            return self.publish(EnvoyState::Down { reason });
        }
        self.update_successor(|successor| (successor.failed, successor.lacks) = (Some(reason), None))
    }

    /// Publishes that Envoy is being drained: the one that was published, else `newest`.
    pub(super) fn draining(&self, newest: u32) {
        let pid = match *self.state.borrow() {
            EnvoyState::Starting { pid, .. } | EnvoyState::Ready { pid, .. } => pid,
            _ => newest,
        };
        self.publish(EnvoyState::Draining { pid });
    }

    fn ended(&self) -> MutexGuard<'_, Option<String>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes `new`, unless Envoy is being drained: nothing but its end follows that. True when it is news.
    fn publish(&self, new: EnvoyState) -> bool {
        self.state.send_if_modified(|old| {
            let changed = !matches!(old, EnvoyState::Draining { .. }) && *old != new;
            if changed {
                *old = new;
            }
            changed
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;

    #[test]
    fn reason_of_an_end_stays_until_one_serves() {
        let state = watch::Sender::new(EnvoyState::Waiting);
        let publisher = EnvoyStatePublisher::new(Options::bare(Host::system()), state.clone());
        let starting = |pid, ended: Option<&str>| EnvoyState::Starting {
            pid,
            ended: ended.map(str::to_owned),
        };
        publisher.starting(1, None);
        assert_eq!(*state.borrow(), starting(1, None));
        publisher.down(Some(1), "does not answer".to_owned());
        publisher.starting(1, None);
        assert_eq!(*state.borrow(), starting(1, None), "it has not ended");
        publisher.down(None, "port 15021 is taken".to_owned());
        publisher.starting(2, Some("it lacks listeners".to_owned()));
        assert_eq!(*state.borrow(), starting(2, Some("port 15021 is taken")));
        publisher.ready(2, false, 1);
        publisher.down(Some(2), "does not answer".to_owned());
        publisher.starting(3, None);
        assert_eq!(*state.borrow(), starting(3, None));
    }

    #[test]
    fn state_of_a_drain_is_the_last_word() {
        let state = watch::Sender::new(EnvoyState::Waiting);
        let publisher = EnvoyStatePublisher::new(Options::bare(Host::system()), state.clone());
        assert!(publisher.is_unserved());
        publisher.draining(1);
        assert!(!publisher.is_unserved());
        assert!(!publisher.ready(1, false, 0));
        assert_eq!(*state.borrow(), EnvoyState::Draining { pid: 1 });
    }
}
