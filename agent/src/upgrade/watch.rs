//! The trial of a version: begun before it is unpacked, watched from its first start on.

use std::path::Path;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use tokio::time::{Instant, sleep};

use super::former;
use super::judge::{Decision, Fault, Judge, Readiness};
use super::record::{Record, RecordFile, boot_id};
use super::unit::{self, Agent};
use crate::config::PathsConfig;
use crate::facts::{Upgrade, UpgradeState};
use crate::host::Host;

/// The pause between two looks at the agent.
const POLL: Duration = Duration::from_millis(500);
/// The number of reboots, without a verdict in between, that are a fault of the new version.
const MAX_REBOOTS: u32 = 2;

/// Keeps the installed version, `from`, for a way back from `to`, which is about to be unpacked; false where there is
/// nothing to go back to, because the agent of `unit` doesn't run. While a version is on trial, or was taken back, the one
/// before it stays the one to go back to. Blocks.
///
/// # Errors
/// When the files can't be kept; then there is no way back, and no record.
pub fn keep(
    host: &Host,
    paths: &PathsConfig,
    unit: &str,
    configuration: &Path,
    from: String,
    to: String,
) -> Result<bool> {
    let file = RecordFile::new(host, paths);
    let earlier = file.load().unwrap_or_else(|error| {
        tracing::warn!("{error:#}; it is replaced");
        None
    });
    let on_trial = earlier
        .as_ref()
        .filter(|record| record.upgrade.state != UpgradeState::RolledBack);
    let before = match (on_trial, unit::look(host, unit)?.agent) {
        (Some(record), _) => record.before,
        (None, Agent::Serving(_)) => Readiness::Serving,
        (None, Agent::Waiting(_)) => Readiness::Waiting,
        (None, _) => {
            file.remove()?;
            former::forget(host)?;
            return Ok(false);
        }
    };
    let from = match earlier {
        Some(record) => record.upgrade.from,
        None => {
            former::keep(host)?;
            from
        }
    };
    file.save(&Record {
        upgrade: Upgrade {
            from,
            to,
            state: UpgradeState::Trial,
            since: SystemTime::now(),
            reason: None,
        },
        before,
        configuration: host.sha256(configuration)?,
        boot: None,
        reboots: 0,
    })?;
    Ok(true)
}

/// Judges the version that is on trial by the agent of `unit`, and goes back from one that fails. Ends with the verdict.
/// `configuration` is the agent's file; `refuses` tells whether this version, the one before, would end over it for good.
/// Calls `ready` when the agent may start: whatever was to be put back before is in its place.
pub async fn watch(
    host: &Host,
    paths: &PathsConfig,
    unit: &str,
    configuration: &Path,
    refuses: impl AsyncFn() -> bool,
    ready: impl Fn(),
) -> Result<()> {
    let file = RecordFile::new(host, paths);
    let Some(mut record) = file.load()? else {
        ready();
        return Ok(());
    };
    match record.upgrade.state {
        UpgradeState::RolledBack => {
            ready();
            return Ok(());
        }
        UpgradeState::RollingBack => return go_back(host, &file, record, unit, ready),
        UpgradeState::Trial => {}
    }
    let boot = Some(boot_id(host)?);
    if boot != record.boot {
        record.reboots += u32::from(record.boot.is_some());
        record.boot = boot;
        file.save(&record)?;
    }
    if record.reboots >= MAX_REBOOTS {
        let reason = format!("the VM was booted {MAX_REBOOTS} times before it had proven itself");
        record.upgrade.reason = Some(reason);
        return go_back(host, &file, record, unit, ready);
    }
    ready();
    // After a reboot the VM meets another network, and another istiod: not to be ready may be nobody's fault.
    let before = match record.reboots {
        0 => record.before,
        _ => Readiness::Waiting,
    };
    let is_another = || host.sha256(configuration).ok() != Some(record.configuration.clone());
    match verdict(host, unit, before, is_another, refuses).await {
        Decision::GoBack { reason, .. } => {
            record.upgrade.reason = Some(reason);
            go_back(host, &file, record, unit, || {})
        }
        Decision::Keep => {
            let Upgrade { from, to, .. } = record.upgrade;
            tracing::info!(from, to, "the upgrade has proven itself");
            // The record first: without it nobody looks for the files.
            file.remove()?;
            Ok(former::forget(host)?)
        }
        Decision::Open | Decision::Stopped => {
            tracing::info!("the agent is not there to be judged: the upgrade stays on trial");
            Ok(())
        }
    }
}

/// Looks at the agent until there is a verdict. Of a configuration that the operator has changed since, a version is not
/// expected to serve as the one before; nor to run with one that `refuses` says the one before would not run with.
async fn verdict(
    host: &Host,
    unit: &str,
    before: Readiness,
    is_another: impl Fn() -> bool,
    refuses: impl AsyncFn() -> bool,
) -> Decision {
    let mut judge = Judge::new(before, Instant::now());
    loop {
        match unit::look(host, unit) {
            Ok(seen) => match judge.see(&seen, Instant::now()) {
                Decision::Open => {}
                Decision::GoBack {
                    fault: Fault::Late,
                    reason,
                } if is_another() => {
                    tracing::info!("{reason}; it has another configuration than the version before had");
                    judge.expect_no_service();
                }
                Decision::GoBack {
                    fault: Fault::Ended,
                    reason,
                } if refuses().await => {
                    tracing::warn!("{reason}; the version before refuses this configuration, too");
                    return Decision::Stopped;
                }
                verdict => return verdict,
            },
            Err(error) => tracing::warn!("failed to look at {unit}: {error}"),
        }
        sleep(POLL).await;
    }
}

fn go_back(host: &Host, file: &RecordFile, mut record: Record, unit: &str, ready: impl Fn()) -> Result<()> {
    let Upgrade { from, to, reason, .. } = record.upgrade.clone();
    let reason = reason.unwrap_or_default();
    tracing::error!(from, to, "the upgrade to {to} is rolled back: {reason}");
    record.becomes(UpgradeState::RollingBack);
    file.save(&record)?;
    // While systemd still knows them.
    unit::stop(host, &former::newer_units(host)?);
    former::restore(host).with_context(|| format!("{to} stays in use"))?;
    ready();
    // Before the record says that it is done: nobody else would end an agent that hangs.
    unit::end(host, unit);
    record.becomes(UpgradeState::RolledBack);
    file.save(&record)?;
    unit::start(host, unit)?;
    tracing::warn!(
        from,
        to,
        "{from} is in use again, though dpkg names {to}: install a version that serves"
    );
    Ok(())
}
