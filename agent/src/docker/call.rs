//! Calls of Docker's Engine API: their deadline, and the answer that something isn't there.

use std::future::Future;
use std::time::Duration;

use anyhow::{Result, bail};
use bollard::errors::Error;
use tokio::time::timeout;

/// The deadline of a call that does little.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Makes a call within a deadline of the agent's own: bollard's ends with the response's head.
pub(crate) async fn bounded<T>(deadline: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T> {
    match timeout(deadline, call).await {
        Ok(result) => Ok(result?),
        Err(_) => bail!("Docker did not answer within {deadline:?}"),
    }
}

/// Takes the answer 404 for `None` and no failure.
pub(crate) fn absent_is_none<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) => match error.downcast_ref() {
            Some(Error::DockerResponseServerError { status_code: 404, .. }) => Ok(None),
            _ => Err(error),
        },
    }
}
