//! A task's handle on the supervisor.

use std::convert::Infallible;
use std::future::Future;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A task's side of the supervisor. Work that it spawns ends when the last handle on the scope is dropped or
/// the drain begins, whichever it waits for.
#[derive(Clone, Debug)]
pub struct Scope {
    drain: CancellationToken,
    ready: watch::Sender<bool>,
    /// Cancelled when one of the task's loops has panicked.
    broken: CancellationToken,
}

impl Scope {
    pub(super) fn new(drain: CancellationToken, ready: watch::Sender<bool>, broken: CancellationToken) -> Self {
        Self { drain, ready, broken }
    }

    /// Says that the task serves.
    pub fn ready(&self) {
        self.ready.send_replace(true);
    }

    /// Completes when the task is to end.
    pub async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Runs `work` beside the task until it is done or the task is to end. A panic is the end of this work alone: it is of
    /// one client, who must not be able to end the others'.
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that spawns beside the supervisor; bounded by the drain"
    )]
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let drain = self.drain.clone();
        tokio::spawn(async move {
            drain.run_until_cancelled(work).await;
        });
    }

    /// Runs a loop beside the task until the task is to end. A panic ends the task, and so the agent: nobody would serve
    /// in its place.
    #[expect(clippy::disallowed_methods, reason = "as `spawn`")]
    pub fn spawn_loop(&self, work: impl Future<Output = Infallible> + Send + 'static) {
        let (drain, broken) = (self.drain.clone(), self.broken.clone().drop_guard());
        tokio::spawn(async move {
            drain.run_until_cancelled(work).await;
            // Not reached by a panic.
            broken.disarm();
        });
    }
}

#[cfg(test)]
impl Scope {
    /// A scope without a supervisor, and the token that drains it.
    pub(crate) fn detached() -> (Self, CancellationToken) {
        let drain = CancellationToken::new();
        let scope = Self::new(drain.clone(), watch::channel(false).0, CancellationToken::new());
        (scope, drain)
    }
}
