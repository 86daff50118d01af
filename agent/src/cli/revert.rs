//! `revert`: the host as it was, found by our marks, whatever became of the agent that left them.

use std::io;
use std::path::Path;

use anyhow::{Result, bail};

use super::configuration::ConfigSource;
use super::{Outcome, print};
use crate::app::parts;
use crate::config::PathsConfig;
use crate::host::{Host, Lock, NetworkLock};
use crate::part::{Site, Units};

/// In the order of a stop: the application, then the rules, so that nothing reaches it past Envoy; then Envoy, then
/// /etc/hosts. Each part is tried, whatever becomes of the others.
/// `hosts_unit` writes /etc/hosts where this process may not.
pub(super) async fn run(path: &Path, hosts_unit: Option<&str>) -> Result<Outcome> {
    revert(&Host::system(), path, hosts_unit).await?;
    print("This host is as it was before istio-vm-agent.\n")
}

pub(super) async fn revert(host: &Host, path: &Path, hosts_unit: Option<&str>) -> Result<()> {
    let site = Site {
        host: host.clone(),
        config: ConfigSource::at_hand_or_default(path, host)?,
        units: Units {
            hosts: hosts_unit.map(str::to_owned),
            ..Units::default()
        },
    };
    let paths = &site.config.paths;
    let _locks = keep_agents_out(host, paths)
        .map_err(|error| anyhow::anyhow!("{error}: stop it first, with `systemctl stop istio-vm-agent` or SIGTERM"))?;
    let mut failures = Vec::new();
    for part in parts(None).iter().rev() {
        if let Err(error) = part.revert(&site).await {
            failures.push(format!("{}: {error:#}", part.name()));
        }
    }
    if let Err(error) = remove_sockets(host, paths) {
        failures.push(format!("run directory: {error:#}"));
    }
    if !failures.is_empty() {
        bail!("failed to revert {}", failures.join("; "));
    }
    Ok(())
}

/// Holds what an agent holds, whatever directories it has: there is none now, and none starts meanwhile.
fn keep_agents_out(host: &Host, paths: &PathsConfig) -> io::Result<(NetworkLock, Option<Lock>)> {
    let network = host.lock_network()?;
    let directory = host.exists(&paths.run).then(|| host.lock(&paths.lock()));
    Ok((network, directory.transpose()?))
}

fn remove_sockets(host: &Host, paths: &PathsConfig) -> Result<()> {
    for socket in [
        paths.xds_socket(),
        paths.sds_socket(),
        paths.dns_socket(),
        paths.status_socket(),
    ] {
        host.remove(&socket)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use crate::host::{CommandError, Invocation, Run};

    #[derive(Debug)]
    struct Untouched;

    impl Run for Untouched {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            panic!("revert touches the host beside an agent: {call}")
        }
    }

    #[tokio::test]
    async fn revert_refuses_beside_an_agent_of_other_directories() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), Untouched);
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
