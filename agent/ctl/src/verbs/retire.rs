//! The end of the VM, in the order that loses no call: the VM leaves the endpoints before the Service forgets it, and the
//! split goes last. Each step looks whether it is still to be done, so that one that was broken off goes on.
//!
//! A Service whose selector matches nothing any more keeps its last endpoint in istiod for ever
//! (istio/pilot/pkg/serviceregistry/kube/controller), and so the selector waits for the VM.

mod service;

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;
use tokio::time::Instant;

use super::remove::remove;
use super::verify::unseen;
use super::{Operation, refuse_others};
use crate::arrival::Sign;
use crate::cluster::Mode;
use crate::findings::{self, WORKLOAD_ENTRIES, WORKLOAD_GROUPS, World};
use crate::gate::Prometheus;
use crate::migration::{Form, Migration, Protocol, Share};
use crate::objects::{self, DESTINATION_RULES, Kind, Position};
use crate::output::Event;
use crate::step::{self, Agreement, Standing};

/// Time that Kubernetes' controllers get for new endpoints, and a VM to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
const PERIOD: Duration = Duration::from_millis(200);

/// Takes the VM out of all clusters; with `check` only says what is in the way.
pub(crate) async fn retire(operation: &Operation, check: bool) -> Result<()> {
    let standings = operation.read().await?;
    refuse_others(&standings, operation.change)?;
    let positions: Vec<_> = standings.iter().map(|it| it.position.clone()).collect();
    drop(standings);
    let worlds = operation.worlds().await?;
    let migration = &operation.migration;
    let is_retired = is_retired(&worlds);
    let has_begun = is_retired && has_traces(&worlds, migration);
    let begins = match progress(&positions, has_begun) {
        Progress::Absent if is_retired => bail!(
            "nothing to retire: no cluster has the split, WorkloadGroup {}/{}, or what a retirement leaves",
            migration.namespace,
            migration.vm.workload_group
        ),
        Progress::Absent => bail!("there is no migration yet: `apply` makes it"),
        Progress::Refused => {
            bail!("not all calls go to the pods in every cluster: `complete` sends them there, `status` tells")
        }
        Progress::Begins => true,
        Progress::Ends => false,
    };
    let in_the_way = in_the_way(operation).await?;
    if !in_the_way.is_empty() {
        bail!("{}", in_the_way.join("\n"));
    }
    if begins && migration.form() == Form::Hosts {
        service::as_the_pods(&worlds, migration)?;
    }
    if check {
        operation.done("nothing that can be seen calls the VM");
        return Ok(());
    }
    if begins {
        leave(operation).await?;
        if operation.migration.form() == Form::Hosts {
            service::select_pods(operation).await?;
            service::endpoints_are_the_pods(operation).await?;
        }
    }
    all_at_the_pods(operation).await?;
    remove(operation, objects::route_kind(&operation.migration)).await?;
    operation.arrived(&Sign::of_none(&operation.migration)).await?;
    if objects::destination_rule(&operation.migration).is_some() {
        remove(operation, DESTINATION_RULES).await?;
        operation.arrived(&Sign::NoSubsets).await?;
    }
    operation.done("the VM is out of the mesh: `systemctl disable --now istio-vm-agent` there");
    Ok(())
}

/// Progress of a retirement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Progress {
    /// There is no migration, and none has come to its end.
    Absent,
    /// Calls still go to the VM.
    Refused,
    /// All is to be done, or looked at again: the split is there.
    Begins,
    /// The split, which goes after all else, is gone; what it led to may not be.
    Ends,
}

fn progress(positions: &[Option<Position>], has_begun: bool) -> Progress {
    // Of the last step, the removal of the split, one half may be done.
    let is_complete = positions.iter().flatten().all(|at| at.share == Share::ALL);
    match step::agreement(positions) {
        Agreement::Absent if has_begun => Progress::Ends,
        Agreement::Absent => Progress::Absent,
        _ if is_complete => Progress::Begins,
        _ => Progress::Refused,
    }
}

/// True when the VM is out of the mesh, or about to be: its group is gone, and the split with all calls at the pods, or
/// what that led to, is there.
pub(super) fn has_begun(worlds: &[World], standings: &[Standing<'_>], migration: &Migration) -> bool {
    let mut positions = standings.iter().filter_map(|it| it.position.as_ref());
    is_retired(worlds) && (positions.any(|at| at.share == Share::ALL) || has_traces(worlds, migration))
}

/// True when no cluster has the WorkloadGroup.
fn is_retired(worlds: &[World]) -> bool {
    worlds.iter().all(|world| world.group.is_none())
}

fn has_traces(worlds: &[World], migration: &Migration) -> bool {
    worlds.iter().any(|world| has_trace(world, migration))
}

/// True for what a retirement leaves in a cluster when the split is gone: the Service's selector, which is then this
/// program's, or else the DestinationRule that it removes last.
fn has_trace(world: &World, migration: &Migration) -> bool {
    let is_ours = |field: &Value| field["manager"] == objects::MANAGER && !field["fieldsV1"]["f:spec"].is_null();
    let objects = match migration.form() {
        Form::Hosts => world.service.iter().collect(),
        Form::Subsets => world.own_rules(migration).collect::<Vec<_>>(),
    };
    let mut fields = objects
        .into_iter()
        .flat_map(|object| object["metadata"]["managedFields"].as_array().into_iter().flatten());
    fields.any(is_ours)
}

/// Whoever calls the VM, or would once the split is gone.
async fn in_the_way(operation: &Operation) -> Result<Vec<String>> {
    let migration = &operation.migration;
    let mut told = Vec::new();
    for world in operation.worlds().await? {
        told.extend(findings::past_the_split(migration, &world));
        told.extend(findings::others_of_the_vm(migration, &world));
    }
    for cluster in &operation.clusters {
        let Some(url) = &cluster.entry.prometheus else {
            let what = format!("{}: who calls the VM", cluster.name());
            unseen(operation, &what, "the file has no `prometheus` to ask");
            continue;
        };
        let prometheus = Prometheus::new(url.as_str())?;
        let calls = operation.interrupt.unless(prometheus.calls_to_vm(migration)).await??;
        if calls >= 1.0 && migration.protocol == Protocol::Tcp {
            told.push(format!("{}: {calls:.0} connections are open at the VM", cluster.name()));
        } else if calls >= 1.0 {
            let window = humantime::format_duration(migration.gate.window);
            told.push(format!(
                "{}: in the last {window} {calls:.0} calls ended at the VM",
                cluster.name()
            ));
        }
    }
    Ok(told)
}

/// Fails when somebody has sent calls to the VM again meanwhile.
async fn all_at_the_pods(operation: &Operation) -> Result<()> {
    let standings = operation.read().await?;
    refuse_others(&standings, operation.change)?;
    let back = standings.iter().find_map(|it| {
        let at = it.position.as_ref().filter(|at| at.share != Share::ALL)?;
        Some(format!(
            "{}: {} has taken over, pods get {}",
            it.cluster.name(),
            at.by,
            at.share
        ))
    });
    match back {
        Some(told) => bail!("{told}: `retire` goes no further, `status` tells"),
        None => Ok(()),
    }
}

/// The group goes first, so that a VM which connects anew can't register; then its registrations, until there have been
/// none for a while: one may have been on its way.
async fn leave(operation: &Operation) -> Result<()> {
    all_at_the_pods(operation).await?;
    for (cluster, world) in operation.clusters.iter().zip(&operation.worlds().await?) {
        if let Some(group) = &world.group {
            cluster.delete(WORKLOAD_GROUPS, group, Mode::Real).await?;
            told(operation, cluster.name(), WORKLOAD_GROUPS, group);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while remove_entries(operation).await? {
        if Instant::now() >= deadline {
            bail!(
                "after {} s there still are WorkloadEntries of group {}: stop the agent on the VM; `retire` goes on",
                PATIENCE.as_secs(),
                operation.migration.vm.workload_group
            );
        }
        let settled = tokio::time::sleep(operation.migration.settle);
        operation.interrupt.unless(settled).await?;
    }
    Ok(())
}

/// True when there were any.
async fn remove_entries(operation: &Operation) -> Result<bool> {
    all_at_the_pods(operation).await?;
    let mut were_there = false;
    for (cluster, world) in operation.clusters.iter().zip(&operation.worlds().await?) {
        for entry in world.entries_of_group(&operation.migration) {
            were_there = true;
            // One that has a finalizer goes when that is done.
            if !entry["metadata"]["deletionTimestamp"].is_null() {
                continue;
            }
            match cluster.delete(WORKLOAD_ENTRIES, entry, Mode::Real).await {
                Ok(()) => told(operation, cluster.name(), WORKLOAD_ENTRIES, entry),
                // istiod has written its health meanwhile.
                Err(failure) if failure.is_conflict() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    Ok(were_there)
}

fn told(operation: &Operation, cluster: &str, kind: Kind, object: &Value) {
    let name = object["metadata"]["name"].as_str().unwrap_or("?");
    let what = &format!("{} {}/{name} is removed", kind.plural, operation.migration.namespace);
    operation.output.tell(&Event::Written { cluster, what });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::tests::position;

    #[test]
    fn retirement_that_was_broken_off_goes_on_even_after_the_split_is_gone() {
        let at = |share| Some(position(share));
        for (positions, has_begun, progress_wanted) in [
            ([at(100), at(100)], false, Progress::Begins),
            ([at(100), at(100)], true, Progress::Begins),
            ([None, at(100)], true, Progress::Begins),
            ([None, None], true, Progress::Ends),
            ([None, None], false, Progress::Absent),
            ([at(100), at(50)], false, Progress::Refused),
            ([None, at(50)], true, Progress::Refused),
        ] {
            assert_eq!(progress(&positions, has_begun), progress_wanted, "{positions:?}");
        }
    }
}
