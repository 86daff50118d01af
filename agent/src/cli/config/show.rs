//! `config show`: every value in effect, and where it is from.

use std::path::Path;

use anyhow::{Error, Result};
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
    /// Settings that the join source and this VM make of the configuration; empty while they aren't known.
    membership: Vec<Setting>,
    /// Why the membership isn't known; absent when it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// Shows what is known, and then fails with what is wrong with the rest.
pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    let (shown, error) = document(path, output).await?;
    print(&shown)?;
    error.map_or(Ok(Outcome::Fine), Err)
}

/// The document, and the error for which it has no membership.
pub(super) async fn document(path: &Path, output: Output) -> Result<(String, Option<Error>)> {
    let host = Host::system();
    let LoadedConfig { config, origin, .. } = ConfigSource::new(path, &host)?.find().await?;
    // So that this process's own calls pass the rules of a running agent.
    let _ = take_proxy_group();
    let (source, membership) = match Join::open(&config, &host) {
        Ok(join) => (join.source(), join.settings().await),
        Err(error) => ("the join source".to_owned(), Err(error.into())),
    };
    let (membership, error) = match membership {
        Ok(membership) => (membership, None),
        Err(error) => (Vec::new(), Some(error)),
    };
    let shown = Shown {
        version: JSON_VERSION,
        configuration: config.settings(),
        membership,
        problem: error.as_ref().map(|error| format!("{error:#}")),
    };
    let document = match output {
        Output::Json => serde_json::to_string_pretty(&shown)? + "\n",
        Output::Text => format!(
            "# Configuration: {}\n{}\n# Membership: {}\n{}{}",
            one_line(&origin),
            text(&shown.configuration),
            one_line(&source),
            text(&shown.membership),
            shown.problem.as_deref().map(unknown).unwrap_or_default()
        ),
    };
    Ok((document, error))
}

/// `# not known`, a line for each thing that is wrong.
fn unknown(problem: &str) -> String {
    let line = |line| format!("# not known: {}\n", one_line(line));
    problem.lines().map(line).collect()
}

/// `key = value  # origin`, a line each.
fn text(settings: &[Setting]) -> String {
    let line = |Setting { key, value, origin }: &Setting| {
        let said = one_line(&format!("{key} = {value}")).into_owned();
        format!("{said:<48}  # {}\n", one_line(origin))
    };
    settings.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigError;

    #[tokio::test]
    async fn configuration_is_shown_as_far_as_it_is_known_when_the_join_source_fails() {
        let folder = tempfile::tempdir().unwrap();
        let (config, bundle) = (folder.path().join("config.toml"), folder.path().join("bundle"));
        let silent = "[join]\nhttps = { url = \"https://127.0.0.1:1/bundle/\" }\n".to_owned();
        for (join, is_configuration) in [
            (format!("[join]\ndirectory = {{ path = {bundle:?} }}\n"), true),
            (silent, false),
        ] {
            std::fs::write(&config, format!("{join}[paths]\nstate = {:?}\n", folder.path())).unwrap();
            let (text, error) = document(&config, Output::Text).await.unwrap();
            assert_eq!(error.unwrap().is::<ConfigError>(), is_configuration, "{join}");
            let (known, unknown) = text.split_once("# Membership: ").expect(&text);
            assert!(known.contains("paths.state = "), "{text}");
            assert!(unknown.lines().nth(1).unwrap().starts_with("# not known: "), "{text}");
            let (json, _) = document(&config, Output::Json).await.unwrap();
            let json: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert!(
                json["problem"].is_string() && json["membership"] == serde_json::json!([]),
                "{json}"
            );
        }
    }
}
