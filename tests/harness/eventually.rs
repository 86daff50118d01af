//! The only way in which the harness waits.

use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// For what takes a moment on an idle machine: a busy one must not fail a case.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// Looks until `condition` gives `Ok`, and fails with its last error once `deadline` has passed.
pub fn eventually<T>(
    what: impl fmt::Display,
    deadline: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > deadline => bail!("{what}: not within {deadline:?}: {error:#}"),
            Err(_) => thread::sleep(PAUSE),
        }
    }
}
