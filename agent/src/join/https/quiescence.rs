//! Time for which something has been as it is, by looks at it from time to time.

use std::time::Duration;

use tokio::time::Instant;

/// The last look's find, and the end of the first look that found it.
#[derive(Debug)]
pub(super) struct Quiescence<T>(Option<(T, Instant)>);

impl<T> Default for Quiescence<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone + PartialEq> Quiescence<T> {
    /// A look that began at `began` and found `now`. Says for how long, at least, it has been so; `None`: it is news.
    pub(super) fn look(&mut self, now: &T, began: Instant) -> Option<Duration> {
        match &self.0 {
            Some((found, since)) if found == now => Some(began.saturating_duration_since(*since)),
            _ => {
                self.0 = Some((now.clone(), Instant::now()));
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The times for which finds have been so, by looks of a second each, with a second between them.
    async fn looks<const N: usize>(found: [&str; N]) -> [Option<u64>; N] {
        let mut quiescence = Quiescence::default();
        let mut said = [None; N];
        for (found, said) in found.into_iter().zip(&mut said) {
            let began = Instant::now();
            advance(SECOND).await;
            *said = quiescence.look(&found, began).map(|rest| rest.as_secs());
            advance(SECOND).await;
        }
        said
    }

    #[tokio::test(start_paused = true)]
    async fn quiescence_counts_time_between_looks_and_news_begin_it_anew() {
        assert_eq!(looks(["a", "a", "a"]).await, [None, Some(1), Some(3)]);
        assert_eq!(looks(["a", "b", "a", "a"]).await, [None, None, None, Some(1)]);
    }
}
