//! The beginning and the end: the objects are made before any call is moved, and removed after all are back.

use anyhow::{Result, bail};
use futures_util::future::try_join_all;

use super::remove::remove;
use super::{Change, Operation, next_position, refuse_others, retire, shift};
use crate::arrival::{OnRefusal, Sign};
use crate::findings::Forbids;
use crate::migration::Share;
use crate::objects::{self, DESTINATION_RULES};
use crate::output;
use crate::step::{self, Agreement};

/// Makes the objects, with all calls to the VM: destinations first, and routes once all proxies have those.
pub(crate) async fn apply(operation: &Operation) -> Result<()> {
    let standings = operation.read().await?;
    refuse_others(&standings, operation.change)?;
    let positions: Vec<_> = standings.iter().map(|it| it.position.clone()).collect();
    let position = match step::agreement(&positions) {
        Agreement::At(at) => at,
        Agreement::Torn if positions.iter().flatten().any(|at| at.share > Share::NONE) => {
            bail!("a step was cut in half: `shift` to either share, or `return`, brings all to one")
        }
        Agreement::Absent | Agreement::Torn => {
            operation.refuse_where(&[Forbids::Everything, Forbids::Vm]).await?;
            next_position(&standings, Share::NONE)?
        }
    };
    drop(standings);
    destinations(operation).await?;
    let standings = operation.read().await?;
    if standings.iter().map(|it| &it.position).ne(&positions) {
        bail!("somebody has changed the split meanwhile: `status` tells who");
    }
    let is_there = standings.iter().all(|it| it.position.as_ref() == Some(&position));
    let route = objects::route(&operation.migration, &position);
    match operation.change {
        Change::Printed => {
            for cluster in &operation.clusters {
                output::document(&format!(
                    "---\n# {}\n{}",
                    cluster.name(),
                    serde_saphyr::to_string(&route)?
                ));
            }
            return Ok(());
        }
        _ if is_there => {}
        change => {
            step::move_all(
                &standings,
                &operation.migration,
                &position,
                change.mode(),
                operation.output,
            )
            .await?;
        }
    }
    drop(standings);
    let position = operation.arrived_at(position, OnRefusal::End).await?;
    if operation.change == Change::Made {
        operation.done(&format!("pods get {} of the calls; `shift` moves more", position.share));
    }
    Ok(())
}

/// Makes the DestinationRule in all clusters. Without a route it changes nothing, so that one which is there alone is
/// left for the next `apply` or for `undo`.
async fn destinations(operation: &Operation) -> Result<()> {
    let Some(rule) = objects::destination_rule(&operation.migration) else {
        return Ok(());
    };
    if operation.change == Change::Printed {
        for cluster in &operation.clusters {
            output::document(&format!(
                "---\n# {}\n{}",
                cluster.name(),
                serde_saphyr::to_string(&rule)?
            ));
        }
        return Ok(());
    }
    let mode = operation.change.mode();
    try_join_all(
        operation
            .clusters
            .iter()
            .map(|cluster| cluster.apply(DESTINATION_RULES, &rule, mode)),
    )
    .await?;
    operation.arrived(&Sign::Subsets).await
}

/// Brings all calls back to the VM, and removes what `apply` has made: routes first.
pub(crate) async fn undo(operation: &Operation) -> Result<()> {
    let standings = operation.read().await?;
    if retire::has_begun(&operation.worlds().await?, &standings, &operation.migration) {
        bail!("no cluster has the WorkloadGroup any more: the VM is retired, or about to be: `retire` goes on");
    }
    let is_away =
        |it: &step::Standing<'_>| it.drift.is_some() || it.position.as_ref().is_some_and(|at| at.share > Share::NONE);
    let away = standings.iter().any(is_away);
    drop(standings);
    if away {
        shift::take_back(operation, false).await?;
        if operation.change != Change::Made {
            return Ok(());
        }
    }
    // At 100/0 a cluster with the object and one without send their calls alike.
    remove(operation, objects::route_kind(&operation.migration)).await?;
    operation.arrived(&Sign::of_none(&operation.migration)).await?;
    if objects::destination_rule(&operation.migration).is_some() {
        remove(operation, DESTINATION_RULES).await?;
        operation.arrived(&Sign::NoSubsets).await?;
    }
    if operation.change == Change::Made {
        operation.done("the clusters are as before `apply`");
    }
    Ok(())
}
