//! Counts of what was turned away, for `status` and the log.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// A flood is one line of the log in so long, not the flood's number of lines.
const QUIET: Duration = Duration::from_secs(60);

/// Counts what was turned away because a bound was reached. A clone counts in the same place: every part has one.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeMap<&'static str, Kind>>>);

#[derive(Debug)]
struct Kind {
    refused: Refused,
    logged: Instant,
}

/// One kind of what was turned away since the agent started.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Refused {
    /// A few words in the plural: `DNS forwards`.
    pub what: String,
    /// Number of refusals.
    pub count: u64,
    /// The client of the last one: an address, a user; empty where there is nothing to tell apart.
    pub whose: String,
    /// When that was.
    #[serde(with = "humantime_serde")]
    pub last: SystemTime,
}

impl Refusals {
    /// Counts one more of `what`, which was `whose`; logs the first one and then at most one a minute.
    pub fn count(&self, what: &'static str, whose: impl fmt::Display) {
        let whose = whose.to_string();
        if let Some(count) = self.add(what, &whose) {
            tracing::warn!(what, count, whose, "turned away: a bound is reached");
        }
    }

    /// Counts without a word; gives the number of them when it is to be told.
    pub(crate) fn add(&self, what: &'static str, whose: &str) -> Option<u64> {
        let (now, last) = (Instant::now(), SystemTime::now());
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let kind = kinds.entry(what).or_insert_with(|| Kind {
            refused: Refused {
                what: what.to_owned(),
                count: 0,
                whose: String::new(),
                last,
            },
            logged: now,
        });
        let count = kind.refused.count.saturating_add(1);
        kind.refused = Refused {
            what: what.to_owned(),
            count,
            whose: whose.to_owned(),
            last,
        };
        let is_news = count == 1 || now.duration_since(kind.logged) >= QUIET;
        is_news.then(|| {
            kind.logged = now;
            count
        })
    }

    /// All kinds of which there was one, by their names.
    pub fn all(&self) -> Vec<Refused> {
        let kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kinds.values().map(|kind| kind.refused.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_of_every_clone_count_in_the_same_place_and_the_last_one_is_named() {
        let refusals = Refusals::default();
        assert!(refusals.all().is_empty());
        refusals.count("DNS forwards", "uid 1000");
        let other = refusals.clone();
        other.count("DNS forwards", "uid 1001");
        refusals.count("15020 connections", "10.0.0.9");
        let told: Vec<(String, u64, String)> = other
            .all()
            .into_iter()
            .map(|refused| (refused.what, refused.count, refused.whose))
            .collect();
        let wanted = [("15020 connections", 1, "10.0.0.9"), ("DNS forwards", 2, "uid 1001")];
        assert_eq!(
            told,
            wanted.map(|(what, count, whose)| (what.to_owned(), count, whose.to_owned()))
        );
    }
}
