//! `upgrade`: the package's way back from a version whose agent doesn't serve. Run by its scripts and by its unit, as the
//! version that served before.

use std::path::Path;

use anyhow::Result;
use clap::Subcommand;
use sd_notify::NotifyState;

use super::configuration::prepare;
use super::{CONFIG, Outcome, block_on, code, print};
use crate::bounds::Refusals;
use crate::config::{LogConfig, PathsConfig};
use crate::host::Host;
use crate::{telemetry, upgrade};

#[derive(Debug, Subcommand)]
pub(super) enum UpgradeVerb {
    /// Keep the installed version for a way back from the one that is unpacked next.
    Keep {
        /// The agent's unit.
        unit: String,
        /// Version that is installed.
        from: String,
        /// Version that is unpacked next.
        to: String,
    },
    /// Judge the version that is on trial, and go back from one that fails.
    Watch {
        /// The agent's unit.
        unit: String,
    },
}

pub(super) fn run(verb: &UpgradeVerb, configuration: &Path) -> Result<Outcome> {
    let (host, paths) = (Host::system(), PathsConfig::default());
    match verb {
        UpgradeVerb::Keep { unit, from, to } => {
            match upgrade::keep(&host, &paths, unit, configuration, from.clone(), to.clone())? {
                true => Ok(Outcome::Fine),
                false => print("The agent does not run: its version is not kept for a way back.\n"),
            }
        }
        UpgradeVerb::Watch { unit } => {
            telemetry::install(&LogConfig::default(), Refusals::default())?;
            let ready = || {
                // Without systemd there is nobody to tell.
                let _ = sd_notify::notify(&[NotifyState::Ready]);
            };
            let refuses = async || {
                let prepared = prepare(configuration, &host).await;
                code(&prepared.map(|_| Outcome::Fine)) == CONFIG
            };
            let watched = upgrade::watch(&host, &paths, unit, configuration, refuses, ready);
            block_on(watched).map(|()| Outcome::Fine)
        }
    }
}
