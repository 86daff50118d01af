//! All steps by themselves, each held until the gate says good; back when it says bad.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use futures_util::future::join_all;
use tokio::time::Instant;

use super::shift::{shift, take_back};
use super::verify::{compare, ready, unseen};
use super::{Change, Operation, refuse_takeover};
use crate::arrival::Missing;
use crate::cluster::Failure;
use crate::gate::{Judgment, Prometheus, Verdict};
use crate::migration::{OnFailure, Protocol, Share};
use crate::objects::Position;
use crate::output::Event;
use crate::step::{self, Agreement, Several};

/// Time between two questions to Prometheus, which itself looks at a proxy every 15 s (Istio's sample).
const PERIOD: Duration = Duration::from_secs(5);
/// Holds that a step may take in all before a gate without a verdict ends the run.
const PATIENCE: u32 = 3;
/// Time in which a return that fails is tried again, and the time between two tries.
const GO_BACK: Duration = Duration::from_secs(300);
const AGAIN: Duration = Duration::from_secs(2);

/// Goes through the steps above the present share, unless VM and pods answer differently, and tells programs how it ended;
/// `skip_verify` is the reason not to compare.
///
/// # Errors
/// When the answers differ, when the gate said bad, when it had no verdict for too long, on a signal, and when somebody else
/// took over.
pub(crate) async fn run(operation: &Operation, skip_verify: Option<&str>) -> Result<()> {
    let ended = go_through(operation, skip_verify).await;
    if let Err(error) = &ended {
        let because = &format!("{error:#}");
        operation.output.note(&Event::Failed { because });
    }
    ended
}

async fn go_through(operation: &Operation, skip_verify: Option<&str>) -> Result<()> {
    if operation.change != Change::Made {
        bail!("`run` has no dry run and nothing to print: `shift` does, step by step");
    }
    if operation.migration.protocol == Protocol::Tcp {
        bail!("`run` judges calls, and connections have no result to judge: `shift` moves them step by step");
    }
    let gates = gates(operation)?;
    let service = &operation.migration.host();
    operation.output.tell(&Event::Running { service });
    ready(operation).await.context("`run` moves no call")?;
    match skip_verify {
        Some(why) => unseen(operation, "whether both sides answer alike", why),
        None => compare(operation).await.context("`run` moves no call")?,
    }
    let at = operation.read().await?;
    let done = at.iter().filter_map(|it| it.position.as_ref().map(|at| at.share)).min();
    let done = done.unwrap_or(Share::NONE);
    let positions: Vec<_> = at.iter().map(|it| it.position.clone()).collect();
    let mut ours = match step::agreement(&positions) {
        Agreement::At(at) => Some(at),
        // The first step mends what was cut in half.
        Agreement::Absent | Agreement::Torn => None,
    };
    drop(at);
    if operation.migration.run.steps.last().is_some_and(|last| *last < done) {
        operation.done(&format!(
            "pods get {done} already: no step is left, and nothing to report"
        ));
        return Ok(());
    }
    for share in operation.migration.run.steps.clone() {
        if share < done {
            continue;
        }
        hook(operation, "run.before", share, ours.as_ref()).await?;
        let position = shift(operation, share, ours.as_ref()).await?;
        if let Err(why) = hold(operation, &gates, &position).await? {
            let on_failure = operation.migration.gate.on_failure;
            if on_failure == OnFailure::Return {
                go_back(operation)
                    .await
                    .with_context(|| format!("at {share} the gate said bad: {why}"))?;
                operation.output.note(&Event::TakenBack { because: &why });
            }
            bail!("at {share} the gate said bad: {why}");
        }
        hook(operation, "run.after", share, Some(&position)).await?;
        ours = Some(position);
    }
    operation.done("all steps are done");
    Ok(())
}

fn gates(operation: &Operation) -> Result<Vec<Prometheus>> {
    let gates = operation.clusters.iter().map(|cluster| {
        let url = cluster.entry.prometheus.as_ref();
        let url = url.with_context(|| {
            format!(
                "cluster {} has no `prometheus`: without it `run` is blind",
                cluster.name()
            )
        })?;
        Prometheus::new(url.as_str())
    });
    gates.collect()
}

/// Sends all calls to the VM, and tries again where a cluster, or a proxy, doesn't have it.
pub(super) async fn go_back(operation: &Operation) -> Result<()> {
    let deadline = Instant::now() + GO_BACK;
    loop {
        let Err(error) = take_back(operation, true).await else {
            return Ok(());
        };
        if !may_pass(&error) || Instant::now() >= deadline {
            return Err(error);
        }
        let because = &format!("{error:#}");
        operation.output.tell(&Event::TriedAgain {
            what: "return",
            because,
        });
        operation.interrupt.unless(tokio::time::sleep(AGAIN)).await?;
    }
}

/// True when one of an error's causes is a call to a cluster, or a proxy that lacks the change: both may be well the next time.
fn may_pass(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| match cause.downcast_ref() {
        Some(Several(all)) => all.iter().any(may_pass),
        None => cause.is::<Failure>() || cause.is::<Missing>(),
    })
}

/// Runs a command of the operator's, which finds the share in `ISTIO_VM_CTL_SHARE`; SIGINT from the terminal reaches it too.
/// Nothing is run where somebody has taken over.
#[expect(
    clippy::disallowed_methods,
    reason = "the operator's own command on the operator's machine, which has no Host"
)]
async fn hook(operation: &Operation, key: &str, share: Share, ours: Option<&Position>) -> Result<()> {
    let run = &operation.migration.run;
    let words = if key == "run.before" { &run.before } else { &run.after };
    let [program, arguments @ ..] = words.as_slice() else {
        return Ok(());
    };
    if let Some(ours) = ours {
        operation.interrupt.unless(still_ours(operation, ours)).await??;
    }
    let mut command = tokio::process::Command::new(program);
    command
        .args(arguments)
        .env("ISTIO_VM_CTL_SHARE", share.of_pods().to_string());
    // What it prints is for people, and stdout may be read by a program.
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    // A signal that comes to this program alone ends both.
    command.kill_on_drop(true);
    let status = operation.interrupt.unless(command.status()).await?;
    let status = status.with_context(|| format!("{key}: failed to run {program:?}"))?;
    if !status.success() {
        bail!("{key}: {program:?} ended with {status}: the run ends before it moves more");
    }
    Ok(())
}

/// Completes when the gate has been good for the whole hold, or with the figure that was bad.
async fn hold(operation: &Operation, gates: &[Prometheus], position: &Position) -> Result<Result<(), String>> {
    let (start, hold) = (Instant::now(), operation.migration.run.hold);
    // Before that a window has calls of the step before, by Prometheus' own delay for as long again.
    let whole = operation.migration.gate.window * 2;
    let least = hold.max(whole);
    let mut good_since = None;
    loop {
        let next = tokio::time::sleep(PERIOD.min(operation.migration.gate.window));
        operation.interrupt.unless(next).await?;
        operation.interrupt.unless(still_ours(operation, position)).await??;
        let is_whole = start.elapsed() >= whole;
        let judgments = gates
            .iter()
            .map(|gate| gate.judgment(&operation.migration, position.share, is_whole));
        let judgments = operation.interrupt.unless(join_all(judgments)).await?;
        let mut is_good = true;
        let window = operation.migration.gate.window.as_secs_f64();
        for (cluster, Judgment { verdict, figures }) in operation.clusters.iter().zip(&judgments) {
            operation.output.tell(&Event::Judged {
                share: position.share,
                cluster: cluster.name(),
                verdict: verdict.word(),
                because: verdict.because(),
                window,
                vm: figures.map(|(vm, _)| vm),
                pods: figures.map(|(_, pods)| pods),
            });
            match verdict {
                Verdict::Bad(why) => return Ok(Err(format!("{}: {why}", cluster.name()))),
                Verdict::Unknown(_) => is_good = false,
                Verdict::Good(_) => {}
            }
        }
        let elapsed = start.elapsed();
        if is_held(&mut good_since, is_good, hold) && elapsed >= least {
            return Ok(Ok(()));
        }
        if elapsed >= least * PATIENCE {
            bail!(
                "no verdict that is good for the whole hold in {}: pods keep {}; `run` goes on once there is one, `return` goes back",
                humantime::format_duration(Duration::from_secs(elapsed.as_secs())),
                position.share
            );
        }
    }
}

/// True once each look since `since` was good, for as long as `hold`.
fn is_held(since: &mut Option<Instant>, is_good: bool, hold: Duration) -> bool {
    if !is_good {
        *since = None;
        return false;
    }
    since.get_or_insert_with(Instant::now).elapsed() >= hold
}

/// Fails when a cluster is no longer where this run has brought it. One that can't be asked for a moment is no reason.
async fn still_ours(operation: &Operation, position: &Position) -> Result<()> {
    for cluster in &operation.clusters {
        if let Ok(standing) = step::read_one(cluster, &operation.migration).await {
            refuse_takeover(&[standing], position)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn gate_is_held_when_each_look_was_good() {
        let (mut since, hold) = (None, Duration::from_secs(10));
        let mut looks = Vec::new();
        for is_good in [true, false, true, true, true] {
            looks.push(is_held(&mut since, is_good, hold));
            tokio::time::advance(PERIOD).await;
        }
        assert_eq!(looks, [false, false, false, false, true]);
    }
}
