//! `plan`: what `run` would change on this host. Changes nothing.

use std::path::Path;

use anyhow::Result;

use super::configuration::ConfigSource;
use super::{Outcome, Output, print};
use crate::app::parts;
use crate::host::Host;
use crate::join::Join;
use crate::part::{Change, Site, Units};

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let host = Host::system();
    let config = ConfigSource::new(path, &host)?.find().await?.config;
    let join = Join::open(&config, &host)?;
    let site = Site {
        host,
        config,
        units: Units::default(),
    };
    let changes = changes(&site, &join).await?;
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&changes)? + "\n",
        Output::Text if changes.is_empty() => "This host is as `run` wants it.\n".to_owned(),
        Output::Text => changes
            .iter()
            .map(|change| format!("# {}\n{}\n", change.name, change.diff.trim_end()))
            .collect(),
    })
}

async fn changes(site: &Site, join: &Join) -> Result<Vec<Change>> {
    let membership = join.fetch().await?;
    let mut changes = Vec::new();
    for part in parts(None) {
        changes.extend(part.plan(site, &membership).await?);
    }
    Ok(changes)
}
