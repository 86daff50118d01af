//! Fuzz targets: answers of Envoy or of whoever is in its place, the record of one, and what one comes in.

use super::admin::{Load, Readiness, server_version};
use super::process::ledger::Document;
use crate::fuzz::is_kept;

pub(crate) use super::process::log_pipes::fuzz::output;
pub(crate) use super::source::fuzz::{archive, layer};

/// Parses an answer of `/stats`.
pub(crate) fn stats(text: &str) {
    let readiness = Readiness::parse(text);
    assert_eq!(readiness.is_ready(), readiness.lacks().is_none());
    let _ = Load::parse(text);
}

/// Parses an answer of `/server_info`.
pub(crate) fn server_info(text: &str) {
    if let Ok(version) = server_version(text) {
        assert!(version.starts_with(|first: char| first.is_ascii_digit()));
    }
}

/// Parses the ledger of the Envoys that run.
pub(crate) fn record(text: &str) {
    is_kept::<Document>(text);
}
