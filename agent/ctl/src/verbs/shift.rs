//! The verbs that move calls.

use anyhow::{Result, bail};
use futures_util::future::{join_all, try_join_all};

use super::verify::unseen;
use super::{Change, Operation, next_position, refuse_others, refuse_takeover};
use crate::arrival::OnRefusal;
use crate::cluster::Failure;
use crate::findings::{self, Forbids};
use crate::migration::Share;
use crate::objects::{self, Position};
use crate::output;
use crate::step::{self, Agreement, Standing};

/// Times that `return` writes what others go on to overwrite.
const TRIES: u32 = 5;

/// Sends `share` of the calls to the pods, in all clusters or in none, and waits until it has arrived. Where `ours` is given,
/// only from that position.
pub(crate) async fn shift(operation: &Operation, share: Share, ours: Option<&Position>) -> Result<Position> {
    let standings = operation.read().await?;
    refuse_others(&standings, operation.change)?;
    if let Some(ours) = ours {
        refuse_takeover(&standings, ours)?;
    }
    let positions: Vec<_> = standings.iter().map(|it| it.position.clone()).collect();
    let position = match step::agreement(&positions) {
        Agreement::Absent => bail!("there is no migration yet: `apply` makes it"),
        Agreement::At(at) if at.share == share => {
            if operation.change == Change::Printed {
                print(operation, &standings, &at)?;
            }
            at
        }
        Agreement::At(_) | Agreement::Torn => {
            let mut forbidden = vec![Forbids::Everything];
            forbidden.extend((share > Share::NONE).then_some(Forbids::Pods));
            forbidden.extend((share < Share::ALL).then_some(Forbids::Vm));
            operation.refuse_where(&forbidden).await?;
            let next = next_position(&standings, share)?;
            write(operation, &standings, &next).await?;
            next
        }
    };
    drop(standings);
    let position = operation.arrived_at(position, OnRefusal::End).await?;
    told(operation, share);
    Ok(position)
}

/// Claims the position as it is: whoever runs a migration elsewhere sees that it is no longer theirs, and stops.
pub(crate) async fn pause(operation: &Operation) -> Result<()> {
    let standings = operation.read().await?;
    refuse_others(&standings, operation.change)?;
    let positions: Vec<_> = standings.iter().map(|it| it.position.clone()).collect();
    let at = match step::agreement(&positions) {
        Agreement::At(at) => at,
        Agreement::Absent => bail!("there is no migration yet: `apply` makes it"),
        Agreement::Torn => bail!("a step was cut in half: `shift` to either share, or `return`, brings all to one"),
    };
    let next = next_position(&standings, at.share)?;
    write(operation, &standings, &next).await?;
    operation.done(&format!(
        "paused: pods get {}, until `run` or `shift` goes on",
        at.share
    ));
    Ok(())
}

/// Sends all calls to the VM, in each cluster that can be reached, whatever the others do and whoever has written the
/// split. No proof is asked for but that there is a VM; `force` does without.
pub(crate) async fn take_back(operation: &Operation, force: bool) -> Result<()> {
    let mut tried = 0;
    let (position, failures) = loop {
        let (standings, mut failures) = operation.interrupt.unless(read_each(operation)).await?;
        if standings.iter().all(|it| it.route.is_none()) && failures.is_empty() {
            bail!("there is no migration in any cluster: nothing is split");
        }
        // With a cluster away nobody can say that the VM is in none.
        if !force && failures.is_empty() {
            refuse_without_vm(operation).await?;
        }
        let mut next = next_position(&standings, Share::NONE)?;
        if operation.change == Change::Printed {
            print(operation, &standings, &next)?;
            return match failures.is_empty() {
                true => Ok(()),
                false => Err(step::all_of(failures).context("not all clusters are printed")),
            };
        }
        let (migration, mode) = (&operation.migration, operation.change.mode());
        let refused = match brought_back(&standings, &next.by) {
            Some(at) => {
                next = at;
                Vec::new()
            }
            None => step::move_each(&standings, migration, &next, mode, operation.output).await,
        };
        tried += 1;
        // Somebody was faster: what it wrote is read, and taken back too.
        if tried < TRIES && refused.iter().any(Failure::is_conflict) {
            continue;
        }
        failures.extend(refused.into_iter().map(Into::into));
        break (next, failures);
    };
    if !failures.is_empty() {
        return Err(step::all_of(failures).context("not all clusters were brought back; `return` again does the rest"));
    }
    operation.arrived_at(position, OnRefusal::Tell).await?;
    told(operation, Share::NONE);
    Ok(())
}

/// Refuses to send calls where no VM is. Where nobody can say that, they go back all the same.
async fn refuse_without_vm(operation: &Operation) -> Result<()> {
    let migration = &operation.migration;
    let entries = operation
        .clusters
        .iter()
        .map(|cluster| findings::registrations(cluster, migration));
    let worlds = operation.interrupt.unless(try_join_all(entries)).await?;
    match worlds.map(|worlds| findings::no_vm(migration, &worlds)) {
        Ok(None) => Ok(()),
        Ok(Some(finding)) => {
            finding.tell(operation.output);
            bail!("refused: calls would go nowhere; `return --force` sends them there all the same")
        }
        Err(failure) => {
            let because = format!("{:#}", anyhow::Error::from(failure));
            unseen(operation, "whether there is a VM", &because);
            Ok(())
        }
    }
}

/// The position to which this very program, `by`, has brought all of them: those are not written again while it tries another
/// cluster anew.
fn brought_back(standings: &[Standing<'_>], by: &str) -> Option<Position> {
    let is_ours = |it: &Standing<'_>| it.drift.is_none() && it.manager.is_none();
    let positions: Vec<_> = standings.iter().map(|it| it.position.clone()).collect();
    match step::agreement(&positions) {
        Agreement::At(at) if standings.iter().all(is_ours) && at.share == Share::NONE && at.by == by => Some(at),
        _ => None,
    }
}

/// The clusters that can be read, and why the others can't.
async fn read_each(operation: &Operation) -> (Vec<Standing<'_>>, Vec<anyhow::Error>) {
    let reads = operation
        .clusters
        .iter()
        .map(|cluster| step::read_one(cluster, &operation.migration));
    let (mut standings, mut failures) = (Vec::new(), Vec::new());
    for read in join_all(reads).await {
        match read {
            Ok(standing) => standings.push(standing),
            Err(failure) => failures.push(failure.into()),
        }
    }
    (standings, failures)
}

async fn write(operation: &Operation, standings: &[Standing<'_>], position: &Position) -> Result<()> {
    if operation.change == Change::Printed {
        return print(operation, standings, position);
    }
    let (migration, mode) = (&operation.migration, operation.change.mode());
    step::move_all(standings, migration, position, mode, operation.output).await
}

fn print(operation: &Operation, standings: &[Standing<'_>], position: &Position) -> Result<()> {
    for standing in standings {
        let object = objects::route(&operation.migration, position);
        let yaml = serde_saphyr::to_string(&object)?;
        output::document(&format!("---\n# {}\n{yaml}", standing.cluster.name()));
    }
    Ok(())
}

fn told(operation: &Operation, share: Share) {
    if operation.change == Change::Made {
        operation.done(&format!("pods get {share} of the calls, the VM {} %", share.of_vm()));
    }
}
