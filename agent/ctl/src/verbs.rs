//! The operator's verbs, each a sequence of steps that can be broken off between any two of them.

mod apply;
mod look;
mod remove;
mod retire;
mod run;
mod shift;
mod verify;

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use futures_util::future::try_join_all;
use nix::unistd::{User, geteuid, gethostname};
use tokio::time::Instant;

use crate::arrival::{self, Missing, OnRefusal, Sign};
use crate::cluster::{Cluster, Mode};
use crate::findings::{self, Forbids, World};
use crate::interrupt::Interrupt;
use crate::migration::{Migration, Share};
use crate::objects::Position;
use crate::output::{Event, Output};
use crate::step::{self, Standing};

pub(crate) use apply::{apply, undo};
pub(crate) use look::{interrupted, plan, status};
pub(crate) use retire::retire;
pub(crate) use run::run;
pub(crate) use shift::{pause, shift, take_back};
pub(crate) use verify::verify;

/// Parts of `patience` after each of which a split is written again that istiod keeps from a proxy.
const TRIES: u32 = 3;

/// State that all verbs have.
pub(crate) struct Operation {
    pub(crate) migration: Migration,
    pub(crate) clusters: Vec<Cluster>,
    pub(crate) output: Output,
    /// The way in which a change is made.
    pub(crate) change: Change,
    pub(crate) interrupt: Interrupt,
}

/// The way in which a change is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Change {
    /// The API servers are told.
    Made,
    /// The API servers check it, and change nothing.
    DryRun,
    /// The objects are printed.
    Printed,
}

impl Change {
    fn mode(self) -> Mode {
        match self {
            Self::Made => Mode::Real,
            Self::DryRun | Self::Printed => Mode::DryRun,
        }
    }
}

impl Operation {
    /// Waits until all clusters' proxies have a change.
    ///
    /// # Errors
    /// When a proxy doesn't get it, and on a signal: the change stays.
    async fn arrived(&self, sign: &Sign) -> Result<()> {
        self.arrived_within(self.migration.patience, sign, OnRefusal::End).await
    }

    async fn arrived_within(&self, patience: Duration, sign: &Sign, on_refusal: OnRefusal) -> Result<()> {
        if self.change != Change::Made {
            return Ok(());
        }
        let (migration, output) = (&self.migration, self.output);
        let waits = self
            .clusters
            .iter()
            .map(|cluster| arrival::wait(cluster, migration, sign, patience, on_refusal, output));
        self.interrupt.unless(try_join_all(waits)).await?.map(drop)
    }

    /// Waits until all clusters' proxies have `position`, and returns it. Where istiod keeps to an older one, the same
    /// split is written anew, of which it has kept nothing: it is at a later position then.
    ///
    /// # Errors
    /// As [`Self::arrived`], and when somebody else has changed the split meanwhile.
    async fn arrived_at(&self, mut position: Position, on_refusal: OnRefusal) -> Result<Position> {
        let patience = self.migration.patience;
        let deadline = Instant::now() + patience;
        loop {
            let sign = Sign::of(&self.migration, &position);
            let Err(error) = self.arrived_within(patience / TRIES, &sign, on_refusal).await else {
                return Ok(position);
            };
            match error.downcast_ref::<Missing>() {
                Some(missing) if Instant::now() < deadline => {
                    if missing.is_older {
                        position = self.write_again(&position).await?;
                    }
                }
                _ => return Err(error),
            }
        }
    }

    async fn write_again(&self, position: &Position) -> Result<Position> {
        let standings = self.read().await?;
        if standings.iter().any(|it| it.position.as_ref() != Some(position)) {
            bail!("somebody has changed the split meanwhile: `status` tells who");
        }
        let next = next_position(&standings, position.share)?;
        step::move_all(&standings, &self.migration, &next, Mode::Real, self.output).await?;
        Ok(next)
    }

    /// All clusters as they stand.
    async fn read(&self) -> Result<Vec<Standing<'_>>> {
        let read = step::read(&self.clusters, &self.migration);
        Ok(self.interrupt.unless(read).await??)
    }

    /// Worlds of all clusters, as a migration finds them.
    async fn worlds(&self) -> Result<Vec<World>> {
        let read = findings::worlds(&self.clusters, &self.migration);
        self.interrupt.unless(read).await?
    }

    /// Refuses to go on where a finding forbids it.
    async fn refuse_where(&self, forbidden: &[Forbids]) -> Result<()> {
        let find = findings::find(&self.clusters, &self.migration);
        let findings = self.interrupt.unless(find).await??;
        let mut count = 0;
        for finding in findings.iter().filter(|finding| forbidden.contains(&finding.forbids)) {
            finding.tell(self.output);
            count += 1;
        }
        match count {
            0 => Ok(()),
            _ => bail!("refused: {count} findings are in the way; nothing was changed"),
        }
    }

    fn done(&self, what: &str) {
        self.output.tell(&Event::Done { what });
    }
}

/// The position after those of `standings`.
fn next_position(standings: &[Standing<'_>], share: Share) -> Result<Position> {
    let epochs = standings
        .iter()
        .filter_map(|it| it.position.as_ref().map(|at| at.epoch));
    Ok(Position {
        share,
        // Anybody may have written the last number there is, and a change of the same number would seem to have arrived.
        epoch: epochs.max().unwrap_or(0).wrapping_add(1),
        since: now(),
        by: operator()?,
    })
}

/// The error of what somebody else has changed, or holds so that it can't be written.
fn refuse_others(standings: &[Standing<'_>], change: Change) -> Result<()> {
    let told = standings.iter().filter_map(|it| {
        // Whoever manages the split is the one who applies what is printed.
        let manager = it.manager.as_ref().filter(|_| change != Change::Printed);
        Some(format!("{}: {}", it.cluster.name(), it.drift.as_ref().or(manager)?))
    });
    let told: Vec<String> = told.collect();
    match told.is_empty() {
        true => Ok(()),
        false => bail!("{}", told.join("\n")),
    }
}

/// The error of a cluster that is no longer where whoever asks has brought it.
fn refuse_takeover(standings: &[Standing<'_>], ours: &Position) -> Result<()> {
    for standing in standings {
        let name = standing.cluster.name();
        if let Some(drift) = &standing.drift {
            bail!("{name}: {drift}");
        }
        match &standing.position {
            Some(at) if at == ours => {}
            Some(at) => bail!("{name}: {} has taken over, pods get {}", at.by, at.share),
            None => bail!("{name}: somebody has removed the migration"),
        }
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "the present, which is before the year 9999")]
fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// `user@host (pid)`: two runs of one person are two.
fn operator() -> Result<String> {
    let user = User::from_uid(geteuid()).ok().flatten();
    let user = user.map_or_else(|| geteuid().to_string(), |user| user.name);
    let host = gethostname().context("this machine has no name")?;
    Ok(format!("{user}@{} ({})", host.to_string_lossy(), std::process::id()))
}

#[cfg(test)]
mod tests;
