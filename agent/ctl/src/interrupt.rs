//! SIGINT and SIGTERM: they end reading and waiting, and never a write.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The error of whatever a signal has ended.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// The count of signals that have come.
#[derive(Clone, Debug)]
pub(crate) struct Interrupt(watch::Receiver<u32>);

impl Interrupt {
    /// From here on the signals end nothing by themselves.
    #[expect(
        clippy::disallowed_methods,
        reason = "no supervisor here: it listens until the program ends"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let (count, receiver) = watch::channel(0);
        for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
            let (mut signals, count) = (signal(kind)?, count.clone());
            tokio::spawn(async move {
                while signals.recv().await.is_some() {
                    count.send_modify(|count| *count += 1);
                }
            });
        }
        Ok(Self(receiver))
    }

    /// One whose signals are counted by the test alone.
    #[cfg(test)]
    pub(crate) fn counted() -> (watch::Sender<u32>, Self) {
        let (count, receiver) = watch::channel(0);
        (count, Self(receiver))
    }

    /// Awaits `work`, which writes nothing, unless a signal has come or comes.
    pub(crate) async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        self.unless_after(0, work).await
    }

    /// Awaits `work` of somebody who knows of one signal, unless there is another.
    pub(crate) async fn unless_again<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        self.unless_after(1, work).await
    }

    async fn unless_after<T>(&self, known: u32, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        let mut count = self.0.clone();
        tokio::select! {
            biased;
            Ok(_) = count.wait_for(|count| *count > known) => Err(Interrupted),
            done = work => Ok(done),
        }
    }
}
