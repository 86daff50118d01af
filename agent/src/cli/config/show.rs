//! `config show`: every value in effect, and where it is from.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::JSON_VERSION;
use crate::cli::configuration::{ConfigSource, LoadedConfig};
use crate::cli::{Outcome, Output, print, take_proxy_group};
use crate::config::Setting;
use crate::host::Host;
use crate::join::Join;
use crate::terminal::one_line;

#[derive(Serialize)]
struct Shown {
    version: u32,
    /// Keys of the configuration.
    configuration: Vec<Setting>,
    /// What the join source and this VM make of it.
    membership: Vec<Setting>,
}

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    print(&document(path, output).await?)
}

pub(super) async fn document(path: &Path, output: Output) -> Result<String> {
    let host = Host::system();
    let LoadedConfig { config, origin, .. } = ConfigSource::new(path, &host)?.find().await?;
    let join = Join::open(&config, &host)?;
    // So that this process's own calls pass the rules of a running agent.
    let _ = take_proxy_group();
    let shown = Shown {
        version: JSON_VERSION,
        configuration: config.settings(),
        membership: join.settings().await?,
    };
    Ok(match output {
        Output::Json => serde_json::to_string_pretty(&shown)? + "\n",
        Output::Text => format!(
            "# Configuration: {}\n{}\n# Membership: {}\n{}",
            one_line(&origin),
            text(&shown.configuration),
            one_line(&join.source()),
            text(&shown.membership)
        ),
    })
}

/// `key = value  # origin`, a line each.
fn text(settings: &[Setting]) -> String {
    let line = |Setting { key, value, origin }: &Setting| {
        let said = one_line(&format!("{key} = {value}")).into_owned();
        format!("{said:<48}  # {}\n", one_line(origin))
    };
    settings.iter().map(line).collect()
}
