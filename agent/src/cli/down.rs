//! `down`: the reverse of `up`. Leaves the mesh, and proves that the host is as it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::configuration::ConfigSource;
use super::up::{UNIT, copies, is_installed, systemctl};
use super::{Outcome, check::named, print, revert};
use crate::config::Config;
use crate::host::Host;

/// The unit that puts the host back when the agent is stopped.
const LEFT_UNIT: &str = "istio-vm-agent-left.service";
/// The file of a bundle that proves who the VM is.
const TOKEN: &str = "istio-token";
/// Longer than systemd itself gives the unit to stop.
const STOP: Duration = Duration::from_secs(180);

/// Options of `down`.
#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Options {
    /// Remove the configuration too, and the Envoys that were fetched.
    #[arg(long)]
    purge: bool,
}

pub(super) async fn run(path: &Path, options: Options) -> Result<Outcome> {
    let host = Host::system();
    // Before it goes: it says where the rest is.
    let config = ConfigSource::at_hand_or_default(path, &host)?;
    if is_installed(&host) {
        print(match host.is_unit_active(UNIT) {
            true => "Leaving the mesh: callers go elsewhere first, and calls in flight may end.\n",
            false => "The agent does not run.\n",
        })?;
        systemctl(&host, &["disable", "--now", UNIT], STOP).await?;
        // systemd stops it with the agent, and waits for the agent alone.
        if host
            .unit_property(LEFT_UNIT, "LoadState")
            .is_ok_and(|state| state == "loaded")
        {
            systemctl(&host, &["stop", LEFT_UNIT], STOP).await?;
        }
    }
    revert::revert(&host, path, None).await?;
    print("This host is as it was: no rules, no Envoy, no container and no line in /etc/hosts is the agent's.\n")?;
    if options.purge {
        for file in copies(&host, path).iter().rev().map(PathBuf::as_path).chain([path]) {
            host.remove(file)?;
        }
        let envoys = config.paths.envoys();
        if host.exists(&envoys) {
            host.remove_directory(&envoys)?;
        }
        return print(&format!(
            "The configuration and the fetched Envoys are gone; the agent's certificate and caches stay in {}, for a later \
             `istio-vm-agent up`.\n{}",
            config.paths.state.display(),
            staying(&config, path, &host)
        ));
    }
    print(&match host.exists(path) {
        true => format!(
            "The agent does not start at boot; {} stays for the next `istio-vm-agent up`.\n",
            path.display()
        ),
        false => "The agent does not start at boot; there is no configuration.\n".to_owned(),
    })
}

/// The files that the configuration named, which are the operator's.
fn staying(config: &Config, path: &Path, host: &Host) -> String {
    let there = named(config, path).into_iter().filter(|(_, path)| host.exists(path));
    let lines: String = there
        .map(|(key, path)| {
            let token = match host.exists(&path.join(TOKEN)) {
                true => format!(", with {TOKEN} in it, by which a VM joins"),
                false => String::new(),
            };
            format!("  {} ({key}){token}\n", path.display())
        })
        .collect();
    match lines.is_empty() {
        true => lines,
        false => format!("What it named stays, and is yours to remove:\n{lines}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    #[test]
    fn files_that_stay_are_named_with_the_token_among_them() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let path = Path::new("/etc/istio-vm-agent/config.toml");
        let said = |text: &str| staying(&Config::parse(path, text).unwrap(), path, &host);
        let bundle =
            "[join]\ndirectory = { path = '/etc/istio-vm-agent/bundle' }\n[envoy]\nbinary = '/usr/local/bin/envoy'\n";
        assert_eq!(said(bundle), "");
        let put = |file: &str| {
            let file = root.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        };
        put("etc/istio-vm-agent/bundle/hosts");
        put("etc/istio-vm-agent/token");
        let stays = "What it named stays, and is yours to remove:\n  /etc/istio-vm-agent/bundle (join.directory.path)";
        assert_eq!(said(bundle), format!("{stays}\n"));
        put("etc/istio-vm-agent/bundle/istio-token");
        assert_eq!(
            said(bundle),
            format!("{stays}, with istio-token in it, by which a VM joins\n")
        );
        let server = "[join.kubernetes]\nserver = 'https://a'\nnamespace = 'n'\nworkload_group = 'w'\n\
                      token_file = '/etc/istio-vm-agent/token'\n";
        assert!(said(server).ends_with("  /etc/istio-vm-agent/token (join.kubernetes.token_file)\n"));
    }
}
