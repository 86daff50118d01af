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

/// Three quarters to five quarters of `time`, by chance: a thousand VMs that began together don't ask together.
pub fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 2.0)
}

/// Sleeps for about `time`, as [`jittered`] has it.
pub async fn sleep_jittered(time: Duration) {
    tokio::time::sleep(jittered(time)).await;
}

/// For connections to a server that may be restarting: 100 ms to 5 s.
pub fn reconnect() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(5))
}

/// Up to a second, by chance, before the first try after a connection that served was lost: an istiod that ends loses the
/// streams of all its VMs in the same moment.
pub fn spread() -> Duration {
    Duration::from_secs(1).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, sleep};

    use super::*;

    /// Tries a tenth of a second of a thousand VMs whose istiod ends, until it is back and has each of them.
    async fn tries(away: Duration) -> Vec<usize> {
        let began = Instant::now();
        let vms: Vec<_> = (0..1000)
            .map(|_| {
                tokio::spawn(async move {
                    let (mut backoff, mut tries) = (reconnect(), Vec::new());
                    sleep(spread()).await;
                    loop {
                        tries.push(began.elapsed());
                        if began.elapsed() >= away {
                            return tries;
                        }
                        backoff.wait().await;
                    }
                })
            })
            .collect();
        let mut rate = vec![0; 1000];
        for vm in vms {
            for time in vm.await.unwrap() {
                rate[time.as_millis() as usize / 100] += 1;
            }
        }
        rate
    }

    #[tokio::test(start_paused = true)]
    async fn thousand_vms_come_back_to_istiod_without_a_herd() {
        for seconds in [0, 1, 5, 30] {
            let rate = tries(Duration::from_secs(seconds)).await;
            let most = rate.iter().max().unwrap();
            assert!(
                *most < 400,
                "away for {seconds} s: {most} of 1000 in a tenth of a second: {rate:?}"
            );
            let last = rate.iter().rposition(|count| *count > 0).unwrap();
            assert!(last as u64 <= seconds * 10 + 110, "the last comes after {last} tenths");
        }
    }

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

    #[test]
    fn jitter_is_at_most_a_quarter_either_way() {
        let waits: Vec<Duration> = (0..100).map(|_| jittered(Duration::from_secs(4))).collect();
        let range = Duration::from_secs(3)..=Duration::from_secs(5);
        assert!(waits.iter().all(|wait| range.contains(wait)), "{waits:?}");
        assert!(waits.iter().any(|wait| *wait != waits[0]), "{waits:?}");
    }
}
