//! Durations in the configuration: as people write them, and of a length that can be added up, and handed to others.

use std::time::Duration;

use humantime::format_duration;
use serde::Serializer;
use serde::de::{Deserializer, Error};

/// The longest that any key takes: nothing here is waited for so long.
pub const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// A duration on a command line.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| "write a number and its unit, such as 90s or 1h 30m".to_owned())
        .and_then(check)
}

/// `90s`, `1h 30m`.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    check(humantime_serde::deserialize(deserializer)?).map_err(D::Error::custom)
}

/// Writes a text that `deserialize` reads as the same.
pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    humantime_serde::serialize(duration, serializer)
}

/// The duration of a key that may be absent.
pub(super) mod optional {
    use super::{Deserializer, Duration, Error, Serializer, check};

    pub(in crate::config) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        let read: Option<Duration> = humantime_serde::deserialize(deserializer)?;
        read.map(check).transpose().map_err(D::Error::custom)
    }

    pub(in crate::config) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        humantime_serde::serialize(duration, serializer)
    }
}

fn check(duration: Duration) -> Result<Duration, String> {
    match duration > LONGEST {
        true => Err(format!(
            "\"{}\" is too long: it must be 365days or less",
            format_duration(duration)
        )),
        false => Ok(duration),
    }
}
