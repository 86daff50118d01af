//! Error of the VM's clock, by the time that others' servers tell.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AGE, DATE, HeaderName};

use crate::facts::date;

/// Clocks that differ by less are not why a token or a certificate is refused.
const SKEW: Duration = Duration::from_secs(120);
/// No cache keeps an answer for longer (RFC 2616, 14.21): who says so is not to be believed.
const LONGEST_AGE: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// The VM's clock, as a server's last answer shows it.
#[derive(Debug, Default)]
pub(crate) struct ClockCheck(Mutex<Option<String>>);

impl ClockCheck {
    /// Takes an answer into account; what it tells is logged when it is news.
    pub(crate) fn compare(&self, headers: &HeaderMap) {
        let problem = wrong_clock(headers, SystemTime::now());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(problem), None) = (&problem, &*known) {
            tracing::warn!("{problem}");
        }
        *known = problem;
    }

    /// Error of the clock, with the remedy; `None` where it is right.
    pub(crate) fn problem(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Error of a clock that says `now`, by the server's, with the remedy; `None` where it is right.
pub(crate) fn wrong_clock(headers: &HeaderMap, now: SystemTime) -> Option<String> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let written = httpdate::parse_http_date(text(DATE)?).ok()?;
    // A cache passes on the date at which it was given the answer, and says how long ago that was (RFC 9111, 5.1).
    let age = text(AGE)
        .and_then(|age| age.parse().ok())
        .map_or(Duration::ZERO, Duration::from_secs);
    if age > LONGEST_AGE {
        return None;
    }
    let there = written.checked_add(age)?;
    let skew = now.duration_since(there).or_else(|_| there.duration_since(now)).ok()?;
    (skew > SKEW).then(|| {
        format!(
            "this VM's clock says {}, the server's {}: set the clock",
            date(now),
            date(there)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cached_answer_is_as_old_as_it_says() {
        let problem = |age: Option<&str>, now: u64| {
            let mut headers = HeaderMap::new();
            headers.insert(DATE, "Thu, 01 Jan 1970 01:00:00 GMT".parse().unwrap());
            headers.extend(age.map(|age| (AGE, age.parse().unwrap())));
            wrong_clock(&headers, SystemTime::UNIX_EPOCH + Duration::from_secs(now))
        };
        assert_eq!(problem(None, 3600 + 120), None);
        assert_eq!(problem(None, 3600 - 120), None);
        let told = "this VM's clock says 1970-01-01T03:00:00Z, the server's 1970-01-01T01:00:00Z: set the clock";
        assert_eq!(problem(None, 3 * 3600).as_deref(), Some(told));
        assert_eq!(problem(Some("7200"), 3 * 3600), None);
        assert!(problem(Some("7200"), 3600).is_some());
        // What is no age, or ends no earlier than time does.
        assert!(problem(Some("old"), 3 * 3600).is_some());
        for age in ["31536001", "300000000000", "18446744073709551615"] {
            assert_eq!(problem(Some(age), 3 * 3600), None);
        }
    }

    proptest::proptest! {
        #[test]
        fn clock_is_judged_by_any_date_and_age_without_a_panic(written in 0..=253_402_300_799_u64, age: u64, now: u64) {
            let written = SystemTime::UNIX_EPOCH + Duration::from_secs(written);
            let mut headers = HeaderMap::new();
            headers.insert(DATE, httpdate::fmt_http_date(written).parse().unwrap());
            for age in [age, age % (2 * LONGEST_AGE.as_secs())] {
                headers.insert(AGE, age.into());
                if let Some(now) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now)) {
                    wrong_clock(&headers, now);
                }
            }
        }
    }
}
