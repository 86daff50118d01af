//! The only way in which tests wait for what nothing tells them of.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// For what takes a moment on an idle machine: a busy one must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `condition` gives `Ok`, and fails with its last error once `deadline` has passed.
pub fn eventually<T>(what: impl Display, deadline: Duration, mut condition: impl FnMut() -> Result<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(end) = ended(condition(), &what, start, deadline) {
            return end;
        }
        thread::sleep(PAUSE);
    }
}

/// [`eventually`] for a test whose tasks go on meanwhile, on its own thread.
pub async fn eventually_async<T>(
    what: impl Display,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(end) = ended(condition(), &what, start, deadline) {
            return end;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn ended<T>(look: Result<T>, what: impl Display, start: Instant, deadline: Duration) -> Option<Result<T>> {
    match look {
        Ok(value) => Some(Ok(value)),
        Err(error) if start.elapsed() > deadline => Some(Err(anyhow!("{what}: not within {deadline:?}: {error:#}"))),
        Err(_) => None,
    }
}
