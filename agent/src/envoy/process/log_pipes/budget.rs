//! The budgets of the lines that Envoy writes. Pure.
//!
//! journald counts the lines of a unit, and Envoy's are the agent's: by default it drops all beyond 10,000 in 30 s.
//! All budgets together stay below that, so that the agent's own lines always pass.

use tokio::time::Instant;

/// The warnings and errors of Envoy's own log that pass in a second, whatever else floods it.
const WARNINGS_PER_SECOND: u32 = 25;
/// The lines of the access log that may come at once.
const ACCESS_BURST_LINES: u32 = 1000;
/// The seconds whose lines of Envoy's own log may come at once.
const OWN_BURST_SECONDS: u32 = 10;
/// The bytes of a line, on average.
const AVERAGE_LINE_BYTES: u32 = 1 << 10;
/// The least bytes of a budget, in a second and at once: more than the longest line.
const MIN_BYTES: u32 = 32 << 10;

/// The budget of one kind of lines.
#[derive(Debug)]
pub(super) struct Budget {
    lines: Bucket,
    bytes: Bucket,
}

impl Budget {
    /// The budget of the access log: `rate` lines a second.
    pub(super) fn of_access_log(rate: u32, now: Instant) -> Self {
        Self::new(rate, ACCESS_BURST_LINES.max(rate), now)
    }

    /// The budget of Envoy's own log below a warning: `rate` lines a second.
    pub(super) fn of_own_log(rate: u32, now: Instant) -> Self {
        Self::new(rate, rate.saturating_mul(OWN_BURST_SECONDS), now)
    }

    /// The budget of Envoy's warnings and errors.
    pub(super) fn of_warnings(now: Instant) -> Self {
        Self::of_own_log(WARNINGS_PER_SECOND, now)
    }

    fn new(rate: u32, burst: u32, now: Instant) -> Self {
        let bytes = |lines: u32| lines.saturating_mul(AVERAGE_LINE_BYTES).max(MIN_BYTES);
        Self {
            lines: Bucket::new((rate, burst), now),
            bytes: Bucket::new((bytes(rate), bytes(burst)), now),
        }
    }

    /// Takes the cost of a line; false, and nothing taken, when the line may not pass.
    pub(super) fn spend(&mut self, line: &str, now: Instant) -> bool {
        let cost = line.len() as f64;
        let affordable = self.lines.left(now) >= 1.0 && self.bytes.left(now) >= cost;
        if affordable {
            self.lines.left -= 1.0;
            self.bytes.left -= cost;
        }
        affordable
    }
}

/// A token bucket.
#[derive(Debug)]
struct Bucket {
    rate: f64,
    burst: f64,
    left: f64,
    filled: Instant,
}

impl Bucket {
    fn new((rate, burst): (u32, u32), now: Instant) -> Self {
        Self {
            rate: rate.into(),
            burst: burst.into(),
            left: burst.into(),
            filled: now,
        }
    }

    fn left(&mut self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.filled).as_secs_f64();
        self.left = elapsed.mul_add(self.rate, self.left).min(self.burst);
        self.filled = now;
        self.left
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::EnvoyConfig;

    /// The lines that journald lets a unit write, and in how many seconds (journald.conf(5)).
    const JOURNALD: (u32, u32) = (10_000, 30);

    fn passed(budget: &mut Budget, lines: u32, line: &str, now: Instant) -> u32 {
        (0..lines).map(|_| u32::from(budget.spend(line, now))).sum()
    }

    #[test]
    fn budget_passes_a_floods_burst_and_then_its_rate() {
        let now = Instant::now();
        let mut budget = Budget::of_own_log(25, now);
        assert_eq!(passed(&mut budget, 10_000, "x", now), 250);
        let later = now + Duration::from_secs(2);
        assert_eq!(passed(&mut budget, 10_000, "x", later), 50);
        let long = "x".repeat(16 << 10);
        let much_later = later + Duration::from_secs(3600);
        assert_eq!(passed(&mut budget, 10_000, &long, much_later), 250 / 16);
    }

    #[test]
    fn budgets_together_stay_below_what_journald_gives_the_unit() {
        let (most, seconds) = JOURNALD;
        let mut now = Instant::now();
        let config = EnvoyConfig::default();
        let mut budgets = [
            Budget::of_access_log(config.access_log_rate, now),
            Budget::of_own_log(config.log_rate, now),
            Budget::of_warnings(now),
        ];
        let mut all = 0;
        for _ in 0..=seconds {
            all += budgets
                .iter_mut()
                .map(|budget| passed(budget, most, "", now))
                .sum::<u32>();
            now += Duration::from_secs(1);
        }
        assert!(all < most - 500, "{all} lines");
    }
}
