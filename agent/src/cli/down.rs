//! `down`: the reverse of `up`. Leaves the mesh, and proves that the host is as it was.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::configuration::ConfigSource;
use super::up::{UNIT, copies, is_installed, systemctl};
use super::{Outcome, print, revert};
use crate::host::Host;

/// The unit that puts the host back when the agent is stopped.
const LEFT_UNIT: &str = "istio-vm-agent-left.service";
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
    // Before the configuration goes, which says where they are.
    let envoys = ConfigSource::at_hand_or_default(path, &host)?.paths.envoys();
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
        if host.exists(&envoys) {
            host.remove_directory(&envoys)?;
        }
        return print(
            "The configuration and the fetched Envoys are gone; the agent's certificate and caches stay in paths.state, for a \
             later `istio-vm-agent up`.\n",
        );
    }
    print(&match host.exists(path) {
        true => format!(
            "The agent does not start at boot; {} stays for the next `istio-vm-agent up`.\n",
            path.display()
        ),
        false => "The agent does not start at boot; there is no configuration.\n".to_owned(),
    })
}
