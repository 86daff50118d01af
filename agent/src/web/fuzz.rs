//! Properties of a server's time, whatever it says.

use std::time::{Duration, SystemTime};

use http::HeaderMap;
use http::header::{AGE, DATE};

use super::clock::wrong_clock;

/// `Date`, `Age`, and what the VM's own clock says, in seconds.
pub(crate) fn clock(input: &str) {
    let mut parts = input.split('\0');
    let mut headers = HeaderMap::new();
    for name in [DATE, AGE] {
        headers.extend(parts.next().and_then(|text| Some((name, text.parse().ok()?))));
    }
    let now = parts
        .next()
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(1_800_000_000);
    if let Some(now) = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now)) {
        let problem = wrong_clock(&headers, now);
        assert!(problem.is_none_or(|problem| problem.lines().count() == 1));
    }
}
