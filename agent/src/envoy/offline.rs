//! Envoy without an agent: what `status`, `plan` and `revert` look at and do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::options::Options;
use super::process::{EnvoyProcess, LaunchSpec, PidRecord, ledger};
use super::source::{Located, locate};
use crate::config::{PathsConfig, hide_secrets};
use crate::facts::Membership;
use crate::host::Host;
use crate::host::change::diff;
use crate::part::{Change, Detail, Effect, Plan, Site};

/// The pid of the newest Envoy of this run directory that is alive; asks nothing of Envoy and never waits.
pub fn running(host: &Host, paths: &PathsConfig) -> Option<u32> {
    Some(ledger::newest(host, paths)?.pid)
}

/// Shows how a start of the agent would change the bootstrap and the running Envoy, under this name. Changes nothing.
pub(super) fn plan(name: &'static str, options: &Options, membership: &Membership) -> Plan {
    let Options { host, paths, .. } = options;
    let located = locate(options);
    let spec = LaunchSpec::new(options, located.path(), membership);
    let program = located.path().display();
    let running = ledger::newest(host, paths);
    let (change, starts) = match &running {
        None => (
            format!("+ start {}\n", spec.command_line.join(" ")),
            format!("Envoy, {program}"),
        ),
        Some(record) => match record.differs_from(&spec) {
            None => return Plan::default(),
            Some(why) => {
                let pid = record.pid;
                (
                    format!("~ replace Envoy, pid {pid}: {why}\n"),
                    format!("Envoy, {program}, which takes over from pid {pid}: {why}"),
                )
            }
        },
    };
    let (change, fetched) = match &located {
        Located::Here(_) => (change, None),
        Located::ToFetch(_) => {
            let source = options.config.source();
            (
                format!("+ fetch {source} to {program}\n{change}"),
                Some(format!("{source} to {program}")),
            )
        }
    };
    let there = running.as_ref().and_then(PidRecord::bootstrap).unwrap_or_default();
    let path = paths.bootstrap().display().to_string();
    let bootstrap = diff(&without_secrets(there), &without_secrets(&spec.bootstrap), &path);
    let change = Change {
        name,
        diff: change,
        detail: Some(Detail {
            of: "Envoy's bootstrap",
            diff: bootstrap,
        }),
    };
    let plan = Plan::of(change)
        .effect(Effect::Starts, starts)
        .effect(Effect::Writes, format!("Envoy's bootstrap into {path}"));
    fetched
        .into_iter()
        .fold(plan, |plan, fetched| plan.effect(Effect::Writes, fetched))
}

/// A bootstrap as it may be shown; nothing where there is none, or it is none.
fn without_secrets(bootstrap: &str) -> String {
    let Ok(mut bootstrap) = serde_json::from_str::<Value>(bootstrap) else {
        return String::new();
    };
    if let Some(Value::Object(proxy_config)) = bootstrap.pointer_mut("/node/metadata/PROXY_CONFIG") {
        hide_secrets(proxy_config);
    }
    format!("{bootstrap:#}\n")
}

/// Ends the Envoys of this run directory without an agent, and removes their files. Returns the pid of the newest one.
pub async fn stop_recorded(host: &Host, paths: &PathsConfig) -> Result<Option<u32>> {
    ledger::recover(host, paths, None).await?;
    let found = EnvoyProcess::all(host, paths);
    for envoy in &found {
        tracing::info!(pid = envoy.pid(), "stopping Envoy");
    }
    EnvoyProcess::end_all(&found).await?;
    for file in files(paths) {
        host.remove(&file).context("failed to remove Envoy's files")?;
    }
    for directory in directories(paths) {
        host.remove_directory(&directory)
            .context("failed to remove Envoy's files")?;
    }
    Ok(found.first().map(EnvoyProcess::pid))
}

/// Ends every Envoy of an agent's: those of this run directory, those of others, and those that systemd has as
/// `units.envoy`, of which nothing may be written down any more.
pub(super) async fn stop_all(site: &Site) -> Result<()> {
    let Site { host, config, units } = site;
    stop_recorded(host, &config.paths).await?;
    for paths in ledger::elsewhere(host, &config.paths) {
        stop_recorded(host, &paths).await?;
    }
    if let Some(unit) = &units.envoy {
        EnvoyProcess::end_all(&EnvoyProcess::of_unit(host, unit).await).await?;
    }
    Ok(())
}

/// The Envoys of an agent's that run, and the files that are there of them, each in words.
pub(super) async fn traces(site: &Site) -> Vec<String> {
    let Site { host, config, units } = site;
    let paths = &config.paths;
    let mut running = EnvoyProcess::all(host, paths);
    running.extend(
        ledger::elsewhere(host, paths)
            .iter()
            .flat_map(|paths| EnvoyProcess::all(host, paths)),
    );
    if let Some(unit) = &units.envoy {
        running.extend(EnvoyProcess::of_unit(host, unit).await);
    }
    let pids: BTreeSet<u32> = running.iter().map(EnvoyProcess::pid).collect();
    let running = pids.into_iter().map(|pid| format!("Envoy, pid {pid}"));
    let files = files(paths).into_iter().chain(directories(paths));
    let there = files
        .filter(|path| host.exists(path))
        .map(|path| path.display().to_string());
    running.chain(there).collect()
}

fn files(paths: &PathsConfig) -> [PathBuf; 3] {
    [paths.envoy_record(), paths.envoy_command(), paths.bootstrap()]
}

fn directories(paths: &PathsConfig) -> [PathBuf; 2] {
    [paths.envoy(), paths.endpoints()]
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown};
    use std::os::unix::process::CommandExt;
    use std::process::Stdio;

    use serde_json::json;

    use super::*;
    use crate::config::Config;
    use crate::part::{ENVOY_USER, Units};
    use crate::supervise::start_time;

    /// A process of Envoy's user, of which a run directory's ledger says that it is Envoy.
    struct Foreign {
        folder: tempfile::TempDir,
        child: std::process::Child,
    }

    impl Foreign {
        fn start() -> Self {
            let folder = tempfile::tempdir().unwrap();
            set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
            let program = folder.path().join("program");
            std::fs::write(&program, "#!/bin/sh\nread line\n").unwrap();
            set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
            let child = std::process::Command::new(&program)
                .arg("-c")
                .arg(folder.path().join("envoy.json"))
                .stdin(Stdio::piped())
                .uid(ENVOY_USER.uid)
                .gid(ENVOY_USER.gid)
                .spawn()
                .unwrap();
            Self { folder, child }
        }

        fn paths(&self) -> PathsConfig {
            PathsConfig {
                run: self.folder.path().to_owned(),
                ..PathsConfig::default()
            }
        }

        /// Writes the ledger down as this user.
        fn record(&self, owner: u32) {
            let record = json!({"pid": self.child.id(), "start_time": start_time(self.child.id()).unwrap(),
                "command_line": [], "binary": null, "bootstrap": null});
            let path = self.paths().envoy_record();
            std::fs::write(&path, json!({"envoys": [record], "starting": null}).to_string()).unwrap();
            chown(&path, Some(owner), None).unwrap();
        }
    }

    impl Drop for Foreign {
        fn drop(&mut self) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }

    #[tokio::test]
    async fn envoy_of_another_run_directory_is_found_where_root_has_written_it_down() {
        let (own, foreign) = (tempfile::tempdir().unwrap(), Foreign::start());
        let mut config = Config::default();
        config.paths.run = own.path().to_owned();
        let site = Site {
            host: Host::system(),
            config,
            units: Units::default(),
        };
        let trace = format!("Envoy, pid {}", foreign.child.id());
        // Anybody may have such a command line, and the user istio-proxy its own files.
        assert!(!traces(&site).await.contains(&trace));
        foreign.record(ENVOY_USER.uid);
        assert!(!traces(&site).await.contains(&trace));
        foreign.record(0);
        assert!(traces(&site).await.contains(&trace));
        let found = ledger::elsewhere(&site.host, &site.config.paths);
        assert!(found.contains(&foreign.paths()), "{found:?}");
        stop_recorded(&site.host, &foreign.paths()).await.unwrap();
        assert!(!traces(&site).await.contains(&trace));
    }

    #[test]
    fn bootstrap_is_shown_without_the_headers_of_a_probe() {
        let bootstrap = r#"{"node": {"id": "n", "metadata": {"PROXY_CONFIG": {"readinessProbe": {"httpGet": {
            "port": 80, "httpHeaders": [{"name": "Authorization", "value": "hunter2"}]}}}}}}"#;
        let shown = without_secrets(bootstrap);
        assert!(shown.contains("Authorization") && !shown.contains("hunter2"), "{shown}");
        assert_eq!(without_secrets(""), "");
    }
}
