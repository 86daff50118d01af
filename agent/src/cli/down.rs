//! `down`: the reverse of `up`. Leaves the mesh, and proves that the host is as it was.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::configuration::ConfigSource;
use super::up::{UNIT, copy_of, is_installed, systemctl};
use super::{Outcome, print, revert};
use crate::host::Host;

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
        print("Leaving the mesh: callers go elsewhere first, and calls in flight may end.\n")?;
        systemctl(&host, &["disable", "--now", UNIT], STOP).await?;
    }
    revert::revert(&host, path, None).await?;
    if options.purge {
        for file in [path.to_owned(), copy_of(path)] {
            host.remove(&file)?;
        }
        if host.exists(&envoys) {
            host.remove_directory(&envoys)?;
        }
    }
    print(match options.purge {
        true => {
            "This VM is not in the mesh, and this host is as it was before `istio-vm-agent up`, but for the agent's \
             certificate and caches in paths.state, which a later `up` uses.\n"
        }
        false => {
            "This VM is not in the mesh, and the agent does not start at boot; the configuration stays for the next \
             `istio-vm-agent up`.\n"
        }
    })
}
