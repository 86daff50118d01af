//! The environment variables that the agent reads itself: only what must be known before there is a configuration, and
//! what `check` compares with the unit's.

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

/// `NO_COLOR`, set to anything: the user wants no colors (no-color.org).
pub(crate) fn no_color() -> bool {
    variable("NO_COLOR").is_some()
}

/// `TERM`: the kind of terminal; absent: none that is known to have colors.
pub(crate) fn terminal() -> Option<String> {
    variable("TERM")
}

/// `HTTPS_PROXY` and its like, by which reqwest goes.
pub(crate) fn proxy_variable(name: &str) -> Option<String> {
    variable(name)
}

#[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}
