//! `proxy`: Envoy's side of the mesh, in the columns and by the filters of `istioctl proxy-config`, from Envoy's admin
//! socket alone. Shows no secrets.

mod clusters;
mod endpoints;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod listeners;
mod routes;
mod secrets;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::configuration::ConfigSource;
use super::{Form, Outcome, Output, print};
use crate::envoy::Admin;
use crate::envoy::view::Dump;
use crate::host::Host;

/// Envoy's side of the mesh.
#[derive(Debug, Subcommand)]
pub(super) enum ProxyVerb {
    /// All that follows; as JSON, Envoy's whole configuration.
    #[command(alias = "all")]
    Config,
    /// The services and subsets that Envoy knows.
    #[command(alias = "cluster")]
    Clusters(#[command(flatten)] clusters::Filter),
    /// The addresses and ports that Envoy answers on, and where connections to them go.
    #[command(alias = "listener")]
    Listeners(#[command(flatten)] listeners::Filter),
    /// The virtual hosts, and where requests to them go.
    #[command(alias = "route")]
    Routes(#[command(flatten)] routes::Filter),
    /// The addresses behind each cluster, and how they are.
    #[command(alias = "endpoint")]
    Endpoints(#[command(flatten)] endpoints::Filter),
    /// The certificates that Envoy has, without keys.
    #[command(alias = "secret")]
    Secrets,
    /// Envoy's counters.
    Stats(#[command(flatten)] StatsFilter),
    /// The levels of Envoy's loggers; with --level, after setting them until Envoy's end.
    Log(#[command(flatten)] LogChange),
}

/// Some of the counters.
#[derive(Args, Debug)]
pub(super) struct StatsFilter {
    /// Counters whose name this regular expression finds.
    #[arg(long, value_name = "REGEX")]
    filter: Option<String>,
}

/// A change of log levels.
#[derive(Args, Debug)]
pub(super) struct LogChange {
    /// The level of all loggers, such as `debug`, or of one, such as `http:debug`.
    #[arg(long, value_name = "[LOGGER:]LEVEL")]
    level: Option<String>,
}

pub(super) async fn run(path: &Path, form: Form, verb: &ProxyVerb) -> Result<Outcome> {
    let output = match form {
        Form::Text => Output::Text,
        Form::Json | Form::Yaml => Output::Json,
    };
    let host = Host::system();
    let config = ConfigSource::at_hand_or_default(path, &host)?;
    let asked = shown(&Admin::of(&host, &config.paths), output, verb).await;
    let text = asked.context("Envoy tells nothing: `istio-vm-agent status` says how it is")?;
    match form {
        Form::Yaml => print(&yaml(&text)?),
        Form::Text | Form::Json => print(&text),
    }
}

/// A document of JSON as YAML; a text that is none, such as the levels of loggers, as it is.
fn yaml(text: &str) -> Result<String> {
    match serde_json::from_str::<Value>(text) {
        Ok(document) => serde_saphyr::to_string(&document).context("failed to write YAML"),
        Err(_) => Ok(text.to_owned()),
    }
}

/// The part of Envoy's account that a verb is about, as it is printed.
async fn shown(admin: &Admin, output: Output, verb: &ProxyVerb) -> Result<String> {
    match verb {
        ProxyVerb::Config => {
            let dump = dump(admin).await?;
            let statuses = statuses(admin).await?;
            Ok(match output {
                Output::Json => json(&dump.document)?,
                Output::Text => summary(&dump, &statuses),
            })
        }
        ProxyVerb::Clusters(filter) => filter.shown(&dump(admin).await?, output),
        ProxyVerb::Listeners(filter) => filter.shown(&dump(admin).await?, output),
        ProxyVerb::Routes(filter) => filter.shown(&dump(admin).await?, output),
        ProxyVerb::Endpoints(filter) => filter.shown(&statuses(admin).await?, output),
        ProxyVerb::Secrets => secrets::shown(&dump(admin).await?, output, SystemTime::now()),
        ProxyVerb::Stats(StatsFilter { filter }) => {
            let format = match output {
                Output::Json => "format=json",
                Output::Text => "format=text",
            };
            let filter = filter.as_ref().map(|it| format!("&filter={}", escaped(it)));
            let path = format!("/stats?{format}{}", filter.unwrap_or_default());
            admin.document(&path).await
        }
        ProxyVerb::Log(LogChange { level }) => {
            let change = level.as_ref().map(|it| it.split_once(':').unwrap_or(("level", it)));
            let change = change.map(|(logger, level)| (escaped(logger), escaped(level)));
            let change = change.as_ref().map(|(logger, level)| (logger.as_str(), level.as_str()));
            admin.log_levels(change).await
        }
    }
}

async fn dump(admin: &Admin) -> Result<Dump> {
    let text = admin.document("/config_dump").await?;
    Dump::parse(&text).context("failed to read Envoy's /config_dump")
}

async fn statuses(admin: &Admin) -> Result<Vec<Value>> {
    let text = admin.document("/clusters?format=json").await?;
    let document: Value = serde_json::from_str(&text).context("failed to read Envoy's /clusters")?;
    Ok(document["cluster_statuses"].as_array().cloned().unwrap_or_default())
}

fn summary(dump: &Dump, statuses: &[Value]) -> String {
    [
        clusters::Filter::default().table(dump),
        listeners::Filter::default().table(dump),
        routes::Filter::default().table(dump),
        endpoints::Filter::default().table(statuses),
        secrets::table_at(dump, SystemTime::now()),
    ]
    .join("\n")
}

/// The resources that a filter lets through, each as Envoy wrote it beside what is read of it.
fn chosen<T: DeserializeOwned>(resources: &[Value], is_chosen: impl Fn(&T) -> bool) -> Vec<(T, &Value)> {
    let read = resources.iter().filter_map(|it| Some((T::deserialize(it).ok()?, it)));
    read.filter(|(view, _)| is_chosen(view)).collect()
}

fn json(document: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(document)? + "\n")
}

/// Columns as wide as their widest cell and five blanks, as istioctl sets most of them.
fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    table_with(5, header, rows)
}

fn table_with(gap: usize, header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut all = vec![header.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| {
        all.iter()
            .filter_map(|row| Some(row.get(column)?.chars().count()))
            .max()
    };
    let widths: Vec<usize> = (0..header.len()).filter_map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<0$}", width + gap));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    all.iter().map(line).collect()
}

/// A value of a query.
fn escaped(value: &str) -> String {
    let byte = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(byte).collect()
}

/// The object of Istio's that a resource was made from, `name.namespace`, by istiod's note; empty where there is none.
fn origin(metadata: &Value) -> String {
    let Some(path) = metadata
        .pointer("/filter_metadata/istio/config")
        .and_then(Value::as_str)
    else {
        return String::new();
    };
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "apis", "networking.istio.io", _, "namespaces", namespace, _, name] => format!("{name}.{namespace}"),
        _ => "<unknown>".to_owned(),
    }
}
