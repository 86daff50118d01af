//! What holds of what Envoy, and whoever has put itself in its place, says, and of what an Envoy comes in.

use super::admin::{Load, Readiness, version_of};
use super::process::Record;

pub(crate) use super::process::log_pipes::fuzz::output;
pub(crate) use super::source::fuzz::archive;

/// An answer of `/stats`.
pub(crate) fn stats(text: &str) {
    let readiness = Readiness::parse(text);
    assert_eq!(readiness.is_ready(), readiness.lacks().is_none());
    let _ = Load::parse(text);
}

/// An answer of `/server_info`.
pub(crate) fn version(text: &str) {
    if let Ok(version) = version_of(text) {
        assert!(version.starts_with(|first: char| first.is_ascii_digit()) && !version.contains('/'));
    }
}

/// What was written down of a running Envoy.
pub(crate) fn record(text: &str) {
    if let Ok(record) = serde_json::from_str::<Record>(text) {
        let again = serde_json::to_string(&record).expect("a record can be written");
        assert!(serde_json::from_str::<Record>(&again).is_ok_and(|again| again == record));
    }
}
