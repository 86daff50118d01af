//! Durations in the configuration: as people write them, and of a length that can be added up, and handed to others.

use std::time::Duration;

use serde::de::{Deserializer, Error};

/// The longest that any key takes: nothing here is waited for so long.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A duration on a command line.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| error.to_string())
        .and_then(check)
}

/// `90s`, `1h 30m`.
pub(super) fn bounded<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    check(humantime_serde::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Reads the duration of a key that may be absent.
pub(super) fn optional<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let read: Option<Duration> = humantime_serde::deserialize(deserializer)?;
    read.map(check).transpose().map_err(D::Error::custom)
}

fn check(duration: Duration) -> Result<Duration, String> {
    match duration > LONGEST {
        true => Err("it must be 365days or less".to_owned()),
        false => Ok(duration),
    }
}
