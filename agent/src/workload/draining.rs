//! Waits that end with the agent.

use std::future::Future;

use crate::supervise::Scope;

/// The end of a wait because the agent is stopping.
#[derive(Debug, thiserror::Error)]
#[error("the agent is stopping")]
pub(super) struct Draining;

/// Waits until the agent is drained. For the long waits only: a call that changes something is always awaited, or the
/// drain could overtake a start and miss what it started.
pub(super) async fn until_drain<T>(scope: &Scope, wait: impl Future<Output = T>) -> Result<T, Draining> {
    tokio::select! {
        biased;
        () = scope.draining() => Err(Draining),
        done = wait => Ok(done),
    }
}
