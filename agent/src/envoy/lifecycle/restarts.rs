//! The wait before a dead Envoy is started again. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The time after which a start is forgotten.
const WINDOW: Duration = Duration::from_secs(10 * 60);
/// The wait after the second start; it doubles with each further one.
const MIN_WAIT: Duration = Duration::from_millis(100);
/// The longest wait, and the only one while the budget is spent.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The time of serving that makes up for one start: what kills an Envoy after it is no fault that each start meets. An Envoy
/// that a configuration or a call kills dies sooner, and each start asks istiod for everything.
const PROVEN: Duration = Duration::from_secs(2);

/// The starts of the last ten minutes.
#[derive(Debug)]
pub(super) struct Restarts {
    budget: usize,
    recent: VecDeque<Instant>,
}

/// The time of the next start.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct NextStart {
    /// The time until then.
    pub(super) wait: Duration,
    /// True while the budget is spent. Starts go on all the same, at the slowest pace: giving up would end the agent,
    /// and with it the rules that keep the traffic from going around Envoy.
    pub(super) budget_spent: bool,
}

impl Restarts {
    /// Restarts of which the `budget`-th within [`WINDOW`] and each one after it wait [`MAX_WAIT`].
    pub(super) fn new(budget: u32) -> Self {
        Self {
            budget: usize::try_from(budget).unwrap_or(usize::MAX),
            recent: VecDeque::new(),
        }
    }

    /// Notes a start.
    pub(super) fn record_start(&mut self, now: Instant) {
        if self.recent.len() > self.budget {
            self.recent.pop_front();
        }
        self.recent.push_back(now);
    }

    /// Notes that the Envoy that is dead now was ready for so long.
    pub(super) fn record_service(&mut self, time: Duration) {
        let made_up_for = usize::try_from(time.as_millis() / PROVEN.as_millis()).unwrap_or(usize::MAX);
        self.recent.drain(..made_up_for.min(self.recent.len()));
    }

    /// The next start after a death: at once after the first one, then after waits that double.
    pub(super) fn next_start(&mut self, now: Instant) -> NextStart {
        self.recent.retain(|start| now.duration_since(*start) < WINDOW);
        let budget_spent = self.recent.len() >= self.budget;
        let doublings = u32::try_from(self.recent.len()).unwrap_or(u32::MAX).checked_sub(2);
        let wait = doublings.map_or(Duration::ZERO, |doublings| {
            MIN_WAIT.saturating_mul(2_u32.saturating_pow(doublings)).min(MAX_WAIT)
        });
        NextStart {
            wait: if budget_spent { MAX_WAIT } else { wait },
            budget_spent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn restarts_begin_at_once_and_end_at_the_slowest_pace_unless_envoy_serves() {
        let mut restarts = Restarts::new(10);
        let waits: Vec<NextStart> = (0..12)
            .map(|_| {
                restarts.record_start(Instant::now());
                restarts.next_start(Instant::now())
            })
            .collect();
        let millis: Vec<u128> = waits.iter().map(|next| next.wait.as_millis()).collect();
        assert_eq!(
            millis,
            [0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 30000, 30000, 30000]
        );
        assert_eq!(waits.iter().filter(|next| next.budget_spent).count(), 3);

        restarts.record_service(PROVEN / 2);
        assert!(restarts.next_start(Instant::now()).budget_spent);
        restarts.record_service(PROVEN * 2);
        assert_eq!(restarts.next_start(Instant::now()).wait.as_millis(), 12800);
        restarts.record_service(WINDOW);
        assert_eq!(restarts.next_start(Instant::now()).wait, Duration::ZERO);

        restarts = Restarts::new(1);
        restarts.record_start(Instant::now());
        tokio::time::advance(WINDOW).await;
        let next = restarts.next_start(Instant::now());
        assert_eq!((next.wait, next.budget_spent), (Duration::ZERO, false));
    }
}
