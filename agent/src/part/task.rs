//! A part's task, before the supervisor has it.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
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
