//! Fuzz targets: answers of Envoy or of whoever is in its place, the record of one, and what one comes in.

use super::admin::{Load, Readiness, server_version};
use super::process::PidRecord;

pub(crate) use super::process::log_pipes::fuzz::output;
pub(crate) use super::source::fuzz::{archive, layer};

/// Parses an answer of `/stats`, or of `/server_info`.
pub(crate) fn stats(text: &str) {
    let readiness = Readiness::parse(text);
    assert_eq!(readiness.is_ready(), readiness.lacks().is_none());
    let _ = Load::parse(text);
    let _ = server_version(text);
}

/// Parses the record of one Envoy: it reads the same again when it is written.
pub(crate) fn record(text: &str) {
    if let Ok(record) = serde_json::from_str::<PidRecord>(text) {
        let again = serde_json::to_string(&record).expect("a record can be written");
        assert!(serde_json::from_str::<PidRecord>(&again).is_ok_and(|again| again == record));
    }
}
