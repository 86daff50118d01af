//! YAML within bounds on events, depth and aliases.

use serde::Deserialize;
use serde_saphyr::Options;

/// Reads a document; `None` for an empty one.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(text: &str) -> Result<Option<T>, serde_saphyr::Error> {
    serde_saphyr::from_str_with_options(text, options())
}

/// A mesh's configuration has some hundred events and no anchors.
pub(crate) fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 100_000,
            max_depth: 64,
            max_aliases: 100,
            max_anchors: 100,
        },
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: 10_000,
            max_replay_stack_depth: 8,
            max_alias_expansions_per_anchor: 100,
        },
        with_snippet: false,
    }
}
