//! `plan`: what `run` would change on this host. Changes nothing.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::configuration::Places;
use super::{Output, Verdict, say};
use crate::config::{Backend, Config};
use crate::facts::Membership;
use crate::host::Host;
use crate::host::change::HostChange;
use crate::join::Join;
use crate::{envoy, hosts, intercept, workload};

#[derive(Serialize)]
struct Change {
    name: &'static str,
    diff: String,
}

pub(super) fn run(path: &Path, output: Output) -> Result<Verdict> {
    let host = Host::system();
    let config = Places::new(path, &host)?.find()?.config;
    let join = Join::open(&config, &host)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let membership = runtime.block_on(join.fetch())?;
    let changes = changes(&config, &host, &membership)?;
    say(&match output {
        Output::Json => serde_json::to_string_pretty(&changes)? + "\n",
        Output::Text if changes.is_empty() => "This host is as `run` wants it.\n".to_owned(),
        Output::Text => changes
            .iter()
            .map(|change| format!("# {}\n{}\n", change.name, change.diff.trim_end()))
            .collect(),
    })
}

fn changes(config: &Config, host: &Host, membership: &Membership) -> Result<Vec<Change>> {
    let mut edits: Vec<Box<dyn HostChange>> = vec![hosts::change(&membership.hosts, &hosts::Writer::Process)];
    if config.intercept.backend != Backend::None {
        edits.push(intercept::change(
            membership,
            &intercept::Options::new(host.clone(), config),
        )?);
    }
    let mut changes = Vec::new();
    for edit in &edits {
        changes.extend(edit.plan(host)?.map(|diff| Change {
            name: edit.name(),
            diff,
        }));
    }
    if let Some((_, Some(reason))) = config.health.choose(membership.probe.as_ref()) {
        changes.push(Change {
            name: "probe",
            diff: format!("not asked: {reason}"),
        });
    }
    let envoy = envoy::Options::new(host.clone(), config, None);
    changes.extend(envoy::plan(&envoy, membership)?.map(|diff| Change { name: "Envoy", diff }));
    if let Some(container) = &config.workload.container {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let planned = runtime.block_on(workload::plan(container))?;
        changes.extend(planned.map(|diff| Change {
            name: "container",
            diff,
        }));
    }
    Ok(changes)
}
