//! `revert`: the host as it was, found by our marks, whatever became of the agent that left them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use serde_json::json;
use tokio::time::{Instant, sleep};

use super::configuration::ConfigSource;
use super::remains::Remains;
use super::{DNS_UNIT, ENVOY_UNIT, Outcome, Output, XDS_UNIT, print, root};
use crate::app::parts;
use crate::config::PathsConfig;
use crate::host::{Host, Lock, NetworkLock};
use crate::part::{Site, Units};

/// Version of the JSON document: it changes when a key goes or means something else.
const VERSION: u32 = 1;
/// Longest wait for what goes by itself: the `nft` of an agent that was killed takes its table along when it ends, and
/// another `revert` takes a second.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The words for a host that is as it was.
pub(super) const DONE: &str = "This host is as it was before istio-vm-agent.\n";
/// Between two looks.
const POLL: Duration = Duration::from_millis(50);

pub(super) async fn run(path: &Path, output: Output) -> Result<Outcome> {
    revert(&Host::system(), path, None).await?;
    print(&match output {
        Output::Json => serde_json::to_string_pretty(&json!({ "version": VERSION, "reverted": true }))? + "\n",
        Output::Text => DONE.to_owned(),
    })
}

/// Puts the host back, and looks afterwards whether it is. In the order of a stop: the application, then the rules, so that
/// nothing reaches it past Envoy; then Envoy, then /etc/hosts. Each part is tried, whatever becomes of the others.
/// `hosts_unit` writes /etc/hosts where this process may not.
///
/// # Errors
/// When an agent runs, or anything is left; names it.
pub(super) async fn revert(host: &Host, path: &Path, hosts_unit: Option<&str>) -> Result<()> {
    let site = Site {
        host: host.clone(),
        config: ConfigSource::at_hand_or_default(path, host)?,
        units: Units {
            envoy: Some(ENVOY_UNIT.to_owned()),
            dns: Some(DNS_UNIT.to_owned()),
            xds: Some(XDS_UNIT.to_owned()),
            hosts: hosts_unit.map(str::to_owned),
            ..Units::default()
        },
    };
    let paths = &site.config.paths;
    let _locks = keep_agents_out(host, paths).await.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => anyhow::anyhow!("{error}: needs root: {}", root::command()),
        _ => anyhow::anyhow!("{error}: stop it first, with `systemctl stop istio-vm-agent` or SIGTERM"),
    })?;
    let mut failed = Vec::new();
    for part in parts(None).iter().rev() {
        if let Err(error) = part.revert(&site).await {
            failed.push(format!("{}: {error:#}", part.name()));
        }
    }
    for file in run_files(paths) {
        if let Err(error) = host.remove(&file) {
            failed.push(format!("{}: {error}", file.display()));
        }
    }
    let left = left(&site).await;
    match failed.is_empty() && left.is_empty() {
        true => Ok(()),
        false => Err(Remains { failed, left }.into()),
    }
}

/// Traces of the agent, once nothing more goes by itself.
async fn left(site: &Site) -> Vec<String> {
    let start = Instant::now();
    loop {
        let left = traces(site).await;
        if left.is_empty() || start.elapsed() >= SETTLE_TIMEOUT {
            return left;
        }
        sleep(POLL).await;
    }
}

/// Every part's traces; what can't be looked at may be there.
async fn traces(site: &Site) -> Vec<String> {
    let mut found = Vec::new();
    for part in parts(None).iter().rev() {
        match part.traces(site).await {
            Ok(traces) => found.extend(traces),
            Err(error) => found.push(format!("{}, perhaps: {error:#}", part.name())),
        }
    }
    let files = run_files(&site.config.paths).into_iter();
    let there = files.filter(|file| site.host.exists(file));
    found.extend(there.map(|file| file.display().to_string()));
    found
}

/// Holds what an agent holds, whatever directories it has: there is none now, and none starts meanwhile. Another `revert`,
/// such as that of the unit which is stopped with the agent, is waited for.
async fn keep_agents_out(host: &Host, paths: &PathsConfig) -> io::Result<(NetworkLock, Option<Lock>)> {
    let start = Instant::now();
    loop {
        match locks(host, paths) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) if start.elapsed() < SETTLE_TIMEOUT => sleep(POLL).await,
            held => return held,
        }
    }
}

fn locks(host: &Host, paths: &PathsConfig) -> io::Result<(NetworkLock, Option<Lock>)> {
    let network = host.lock_network()?;
    let directory = host.exists(&paths.run).then(|| host.lock(&paths.lock()));
    Ok((network, directory.transpose()?))
}

/// Files of the run directory that are no single part's, or that a part leaves for the next agent.
fn run_files(paths: &PathsConfig) -> [PathBuf; 8] {
    [
        paths.xds_socket(),
        paths.sds_socket(),
        paths.dns_socket(),
        paths.place_socket(),
        paths.status_socket(),
        paths.names(),
        paths.node(),
        paths.counted(),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::cli::refusal;
    use crate::config;
    use crate::host::fixtures::{Answers, not_installed};
    use crate::host::{Invocation, Run};

    /// A VM with an agent's names in its run directory, and a configuration that keeps dockerd out.
    fn vm(runner: impl Run + 'static) -> (tempfile::TempDir, Host, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("config.toml");
        let text = "[join]\ndirectory = { path = \"/b\" }\n[workload.container]\nname = \"web\"\nimage = \"web:1\"\n\
                    docker_socket = \"/nonexistent/docker.sock\"\n";
        std::fs::write(&config, text).unwrap();
        let host = Host::new(root.path(), runner);
        let paths = PathsConfig::default();
        host.make_directory(&paths.run, 0o755, None).unwrap();
        host.write(&paths.names(), "{}", 0o600, None).unwrap();
        (root, host, config)
    }

    #[tokio::test(start_paused = true)]
    async fn revert_names_what_is_left_and_removes_the_rest() {
        // A kernel that keeps the agent's table, whatever it is told.
        let (_root, host, config) = vm(Answers(|call: &Invocation| match call.to_string().as_str() {
            "nft list table inet istio_vm_agent" => Ok("table inet istio_vm_agent {\n}\n".to_owned()),
            "nft -f -" => Ok(String::new()),
            _ => not_installed(call),
        }));
        let error = revert(&host, &config, None).await.unwrap_err();
        let told = "left on it:\n- the nftables table istio_vm_agent, 0 rules\nmend";
        assert!(error.to_string().contains(told), "{error}");
        let document: Value = serde_json::from_str(&refusal::document(&error, 1).unwrap()).unwrap();
        let left = json!({ "problem": "the nftables table istio_vm_agent, 0 rules: is left on this host" });
        assert_eq!(document["errors"].as_array().unwrap().last(), Some(&left), "{document}");
        assert!(!host.exists(&PathsConfig::default().names()));
    }

    #[tokio::test(start_paused = true)]
    async fn revert_can_be_done_again() {
        let (_root, host, config) = vm(Answers(not_installed));
        for _ in 0..2 {
            revert(&host, &config, None).await.unwrap();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn revert_waits_for_another_one() {
        let (_root, host, config) = vm(Answers(not_installed));
        let other = host.lock_network().unwrap();
        let end = async {
            sleep(POLL * 3).await;
            drop(other);
            Ok(())
        };
        tokio::try_join!(revert(&host, &config, None), end).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn revert_refuses_beside_an_agent_of_other_directories() {
        let root = tempfile::tempdir().unwrap();
        let untouched = Answers(|call: &Invocation| panic!("revert touches the host beside an agent: {call}"));
        let host = Host::new(root.path(), untouched);
        let _agent = host.lock_network().unwrap();
        let reverted = revert(&host, Path::new(config::DEFAULT_PATH), None).await;
        let error = reverted.unwrap_err().to_string();
        let wanted = format!(
            "an agent runs on this host, with pid {}: stop it first",
            std::process::id()
        );
        assert!(error.starts_with(&wanted), "{error}");
    }
}
