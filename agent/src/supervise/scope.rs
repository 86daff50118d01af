//! A task's handle on the supervisor.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::{io, thread};

use tokio::runtime;
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

    /// A handle for a piece of the task's work, which is to end also when `gone` is cancelled.
    pub fn until(&self, gone: CancellationToken) -> Self {
        let drain = self.drain.child_token();
        let piece = Self::new(drain.clone(), self.ready.clone(), self.broken.clone());
        self.spawn(async move {
            gone.cancelled().await;
            drain.cancel();
        });
        piece
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

    /// Runs a loop on a thread with a runtime of its own until the task is to end, so that no other work delays it. `make` is
    /// called within that runtime, for what has to be registered with it. A panic of the loop ends the task, as of
    /// [`Self::spawn_loop`]. The thread ends before the task's own runtime does.
    ///
    /// # Errors
    /// When `make` fails, or the system gives no thread.
    pub fn spawn_thread<F>(&self, name: &str, make: impl FnOnce() -> io::Result<F>) -> io::Result<()>
    where
        F: Future<Output = Infallible> + Send + 'static,
    {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let work = {
            let _within = runtime.enter();
            make()?
        };
        let (stop, broken) = (CancellationToken::new(), self.broken.clone().drop_guard());
        let stopped = stop.clone();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(stopped.run_until_cancelled(work));
            broken.disarm();
        })?;
        let joined = Joined {
            stop,
            thread: Some(thread),
        };
        self.spawn(async move {
            let _joined = joined;
            pending::<()>().await;
        });
        Ok(())
    }
}

/// A thread that is stopped and waited for when this is dropped.
#[derive(Debug)]
struct Joined {
    stop: CancellationToken,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.stop.cancel();
        // Its panic has been told already.
        let _ = self.thread.take().map(thread::JoinHandle::join);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn piece_of_a_task_ends_alone_or_with_it() {
        let (scope, drain) = Scope::detached();
        let gone = CancellationToken::new();
        let (piece, other) = (scope.until(gone.clone()), scope.until(CancellationToken::new()));
        gone.cancel();
        piece.draining().await;
        assert!(!drain.is_cancelled() && !other.drain.is_cancelled());
        drain.cancel();
        other.draining().await;
    }

    #[tokio::test]
    async fn thread_ends_with_its_task_and_its_panic_is_told() {
        let (scope, drain) = Scope::detached();
        let (ended, end) = tokio::sync::oneshot::channel::<()>();
        let loop_of = |ended| {
            Ok(async move {
                let _ended: tokio::sync::oneshot::Sender<()> = ended;
                pending().await
            })
        };
        scope.spawn_thread("loop", || loop_of(ended)).unwrap();
        drain.cancel();
        end.await.unwrap_err();

        let (scope, _drain) = Scope::detached();
        scope
            .spawn_thread("panics", || Ok(async { panic!("by what any client sent") }))
            .unwrap();
        scope.broken.cancelled().await;
    }
}
