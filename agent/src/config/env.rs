//! The environment variables that the agent reads itself: only what must be known before there is a configuration.

use std::env;
use std::path::PathBuf;

/// `GCE_METADATA_HOST`: `host[:port]` of the metadata server, as in Google's own libraries.
pub(crate) fn gce_metadata_host() -> Option<String> {
    variable("GCE_METADATA_HOST")
}

/// `STATE_DIRECTORY`: where systemd lets the unit keep state; else where the unit has it.
pub(crate) fn state_directory() -> PathBuf {
    variable("STATE_DIRECTORY").map_or_else(|| super::PathsConfig::default().state, PathBuf::from)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
