//! Moments, as people are told them.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A moment in RFC 3339, UTC, to the second; one that has no such name, before 1970 or after 9999, is told as that.
///
/// humantime's own value refuses to be formatted then, and `format!` panics.
#[expect(clippy::disallowed_methods, reason = "its failure is taken care of")]
pub fn date(at: SystemTime) -> String {
    named(at, humantime::format_rfc3339_seconds)
}

/// A moment as [`date`] writes it, to the microsecond.
#[expect(clippy::disallowed_methods, reason = "its failure is taken care of")]
pub fn date_with_micros(at: SystemTime) -> String {
    named(at, humantime::format_rfc3339_micros)
}

fn named(at: SystemTime, format: fn(SystemTime) -> humantime::Rfc3339Timestamp) -> String {
    if at < UNIX_EPOCH {
        return "a time before 1970".to_owned();
    }
    let mut text = String::new();
    match write!(text, "{}", format(at)) {
        Ok(()) => text,
        Err(_) => "a time after 9999".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moment_has_a_name_however_far() {
        let at = |seconds| date(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "1970-01-01T00:00:00Z");
        assert_eq!(at(253_402_300_799), "9999-12-31T23:59:59Z");
        assert_eq!(at(253_402_300_800), "a time after 9999");
        assert_eq!(at(i64::MAX.unsigned_abs()), "a time after 9999");
        assert_eq!(date(UNIX_EPOCH - Duration::from_secs(1)), "a time before 1970");
    }
}
