//! The switch from Istio's own agent to this one, and back.
//!
//! Calls are redirected all the time: its rules stay when it stops, until ours take their place. From the end of its
//! Envoy to the start of ours they are refused, as after any end of Envoy. How it stood is written down first: a switch
//! that fails is undone, and one that is interrupted can be, or can be made again.

mod back;
mod steps;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::account;
use crate::cli::configuration::{ConfigSource, LoadedConfig, prepare};
use crate::cli::{Outcome, block_on, check, print, revert};
use crate::config::PathsConfig;
use crate::host::{Host, Invocation};
use crate::sidecar::{self, Settings};
use back::Back;
use steps::Switch;

const OURS: &str = "istio-vm-agent.service";
/// Longer than systemd itself gives a unit to stop.
const STOP: Duration = Duration::from_secs(180);

pub(super) fn run(host: &Host, path: &Path, settings: &Settings, within: Duration) -> Result<Outcome> {
    let (config, membership) = block_on(async {
        let (LoadedConfig { config, .. }, join) = prepare(path, host).await?;
        let membership = join.fetch().await?;
        let fits = check::expect_fit(&config, host, &membership, &join).await;
        fits.context("nothing has been switched")?;
        anyhow::Ok((config, membership))
    })?;
    account::expect_free(host)?;
    let theirs = sidecar::find(host)?.unwrap_or_default();
    ensure!(
        theirs.unit.is_some() || theirs.pids.is_empty(),
        "Istio's own agent {}, and no {} stops it: end it yourself, then run this again",
        theirs.activity().unwrap_or_default(),
        sidecar::UNIT
    );
    let store = config.paths.sidecar_backup();
    if sidecar::is_interrupted(host, &store)? {
        print("The last switch was interrupted. This one goes on from there.\n")?;
    }
    let mut switch = Switch::new(host, &config, &membership, settings, &theirs, within);
    switch.make().map_err(|error| {
        let was_started = sidecar::before(host, &store).is_ok_and(|before| before.is_some_and(|it| it.started));
        match back(host, path, was_started) {
            Ok(()) if was_started => error.context("the switch failed and is undone: Istio's own agent is back"),
            Ok(()) => error.context("the switch failed and is undone"),
            Err(left) => error.context(format!(
                "the switch failed, and so did going back ({left:#}): mend that, then `istio-vm-agent import --undo`"
            )),
        }
    })?;
    let taken: String = switch.taken.iter().map(|name| format!("  {name}\n")).collect();
    print(&format!(
        "This VM is in the mesh by istio-vm-agent; {} is stopped and disabled. Taken away from it:\n{taken}\
         `istio-vm-agent import --undo` goes back. Before you purge the package istio-sidecar: its Envoy goes with it, \
         and the one here is {}.\n",
        sidecar::UNIT,
        config.envoy.source()
    ))
}

/// Stops this agent, puts back what a switch took away, and starts Istio's own.
pub(super) fn undo(host: &Host, path: &Path) -> Result<Outcome> {
    let store = paths(path, host).sidecar_backup();
    let theirs = sidecar::find(host)?.unwrap_or_default();
    ensure!(theirs.unit.is_some(), "there is no {} to go back to", sidecar::UNIT);
    if host.meta(&store)?.is_none() {
        bail!("nothing was switched: there is no {}", store.display());
    }
    back(host, path, true)?;
    print(&format!(
        "{} runs again, with all that was taken away from it.\n",
        sidecar::UNIT
    ))
}

fn back(host: &Host, path: &Path, start: bool) -> Result<()> {
    let paths = paths(path, host);
    // A file of its that can't be read any more must not keep it from coming back.
    let settings = super::settings(host).unwrap_or_default();
    let revert = || {
        block_on(revert::revert(host, path, None))?;
        steps::remove_its_rules(host, &settings)
    };
    Back {
        host,
        paths: &paths,
        start,
    }
    .make(revert)
}

fn systemctl(host: &Host, arguments: &[&str]) -> Result<()> {
    let argv = ["systemctl", "--quiet"].into_iter().chain(arguments.iter().copied());
    host.run(&Invocation::new(argv).within(STOP))?;
    Ok(())
}

/// The configuration's, or the default ones when it can't be read any more.
fn paths(path: &Path, host: &Host) -> PathsConfig {
    let found = ConfigSource::new(path, host).and_then(|source| source.at_hand());
    found.ok().flatten().map(|config| config.paths).unwrap_or_default()
}

#[cfg(test)]
mod tests;
