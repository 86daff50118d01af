//! `config`: the configuration and the bundle at hand, judged or shown. Touches nothing.

mod show;
mod validate;

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;

use super::{Outcome, Output};
#[cfg(test)]
pub(super) use validate::judged;

/// The version of what both verbs print as JSON: fields are added to it, and none is taken away or changed.
const JSON_VERSION: u32 = 1;

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigVerb {
    /// Judge the configuration, and the bundle that needs no network: all that is wrong, each with its place and its
    /// remedy.
    Validate,
    /// Show every value in effect and where it is from, without secrets.
    Show,
}

/// The text of `config show`.
pub(super) async fn shown(path: &Path) -> Result<String> {
    show::document(path, Output::Text).await.map(|(text, _)| text)
}

pub(super) async fn run(path: &Path, output: Output, verb: ConfigVerb) -> Result<Outcome> {
    match verb {
        ConfigVerb::Validate => validate::run(path, output).await,
        ConfigVerb::Show => show::run(path, output).await,
    }
}
