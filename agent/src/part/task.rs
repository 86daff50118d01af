//! A part's task, before the supervisor has it.

use std::fmt;
use std::future::{Future, pending};
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::{BoxFuture, select_all};
use futures_util::stream::BoxStream;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use crate::supervise::{Scope, Supervisor};

/// Grace of a task that only lets go of sockets or undoes one change of the host.
pub const SHORT: Duration = Duration::from_secs(5);

/// A stream that yields at each change of a fact.
pub type Changes = BoxStream<'static, ()>;

/// The changes of one fact after this moment.
pub fn changes_of<T: Clone + Send + Sync + 'static>(fact: &watch::Sender<T>) -> Changes {
    WatchStream::from_changes(fact.subscribe()).map(drop).boxed()
}

/// Waits until one of several facts changes. Without any it waits for ever.
///
/// # Errors
/// When the publisher of one is gone.
pub async fn any_changed<T>(facts: &mut [watch::Receiver<T>]) -> Result<(), watch::error::RecvError> {
    match facts.is_empty() {
        true => pending().await,
        false => {
            select_all(facts.iter_mut().map(|fact| Box::pin(fact.changed())))
                .await
                .0
        }
    }
}

/// The work of a part as long as the agent lives.
pub struct Task {
    grace: Duration,
    beside_next: bool,
    body: Box<dyn FnOnce(Scope) -> BoxFuture<'static, Result<()>> + Send>,
}

impl Task {
    /// A task that is given `grace` to end when it is drained.
    pub fn new<F, Fut>(grace: Duration, body: F) -> Self
    where
        F: FnOnce(Scope) -> Fut + Send + 'static,
        Fut: Future<Output = Result<()>> + Send + 'static,
    {
        Self {
            grace,
            beside_next: false,
            body: Box::new(|scope| Box::pin(body(scope))),
        }
    }

    /// The same task, for which the part after it does not wait.
    #[must_use]
    pub fn beside_next(mut self, beside_next: bool) -> Self {
        self.beside_next = beside_next;
        self
    }

    /// Hands the task to the supervisor and waits until it is ready, unless the next part starts beside it.
    ///
    /// # Errors
    /// The failure of any task before that.
    pub async fn start(self, name: &'static str, supervisor: &mut Supervisor) -> Result<()> {
        supervisor.spawn(name, self.grace, self.body);
        match self.beside_next {
            true => Ok(()),
            false => supervisor.newest_ready().await,
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Task")
            .field("grace", &self.grace)
            .finish_non_exhaustive()
    }
}
