//! Waits between tries: doubling, with jitter, for ever.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

/// From `first` doubling up to `max`, each with up to as much again of jitter; never gives up.
#[derive(Debug)]
pub struct Backoff {
    shape: ExponentialBuilder,
    waits: ExponentialBackoff,
}

impl Backoff {
    /// A fresh one.
    pub fn new(first: Duration, max: Duration) -> Self {
        let shape = ExponentialBuilder::default()
            .with_min_delay(first)
            .with_max_delay(max)
            .with_jitter()
            .without_max_times();
        Self {
            shape,
            waits: shape.build(),
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        self.waits.next().unwrap_or_default()
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.waits = self.shape.build();
    }

    /// Sleeps for the next wait.
    pub async fn wait(&mut self) {
        tokio::time::sleep(self.next_wait()).await;
    }
}

/// For connections to a server that may be restarting: 100 ms to 5 s.
pub fn reconnect() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_stay_bounded_and_never_end() {
        let (first, max) = (Duration::from_millis(100), Duration::from_secs(5));
        let mut backoff = Backoff::new(first, max);
        let waits: Vec<Duration> = (0..100).map(|_| backoff.next_wait()).collect();
        assert!(waits.iter().all(|wait| *wait >= first && *wait <= max * 2), "{waits:?}");
        assert!(waits[99] >= max);
        backoff.reset();
        assert!(backoff.next_wait() <= first * 2);
    }
}
