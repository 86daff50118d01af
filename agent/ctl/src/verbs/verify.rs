//! Checks before a call is moved: whether callers have both sides, and whether both answer alike.

use anyhow::{Context as _, Result, bail};

use super::Operation;
use crate::arrival;
use crate::findings::{self, Forbids};
use crate::migration::Verify;
use crate::output::Event;
use crate::parity::{self, Sides};

/// Tells of the pods that can't take calls.
///
/// # Errors
/// When there are no others.
pub(super) async fn ready(operation: &Operation) -> Result<()> {
    let findings = findings::of_pods(&operation.migration, &operation.worlds().await?);
    for finding in &findings {
        finding.tell(operation.output);
    }
    match findings.iter().any(|finding| finding.forbids == Forbids::Pods) {
        true => bail!("no pod can take calls: nothing was changed"),
        false => Ok(()),
    }
}

/// Fails where the mesh doesn't take the split as it is.
async fn refused(operation: &Operation) -> Result<()> {
    let standings = operation.read().await?;
    let refusals = standings.iter().filter_map(|it| {
        let why = it.refusal.as_ref()?;
        Some(format!("{}: {why}", it.cluster.name()))
    });
    match refusals.collect::<Vec<_>>().as_slice() {
        [] => Ok(()),
        refusals => bail!("{}", refusals.join("\n")),
    }
}

/// Tells whether pods can take calls, for each cluster whether its callers' proxies have both sides, and compares the answers of both.
///
/// # Errors
/// When no pod is ready, when istiod refuses the split, when a proxy lacks a side, or has it without mutual TLS, and when answers differ.
pub(crate) async fn verify(operation: &Operation) -> Result<()> {
    ready(operation).await?;
    refused(operation).await?;
    let mut lacking = 0;
    for cluster in &operation.clusters {
        let reach = arrival::reach(cluster, &operation.migration);
        for reach in operation.interrupt.unless(reach).await?? {
            for problem in &reach.problems {
                operation.output.tell(&Event::Finding {
                    cluster: cluster.name(),
                    forbids: "not reached",
                    problem,
                });
            }
            lacking += reach.problems.len();
            operation.output.tell(&Event::Reached {
                cluster: cluster.name(),
                side: reach.side,
                proxies: reach.proxies,
                endpoints: &reach.endpoints.into_iter().collect::<Vec<_>>(),
            });
        }
        if cluster.entry.istiod.is_none() {
            let what = format!("{}: what callers' proxies have", cluster.name());
            unseen(operation, &what, "the file has no `istiod` to ask");
        }
    }
    let compared = compare(operation).await;
    if lacking > 0 {
        compared?;
        bail!("{lacking} proxies lack a side: `plan` may say why");
    }
    compared?;
    operation.done("nothing that can be seen speaks against moving calls");
    Ok(())
}

/// Compares the answers of both sides to the calls of the file.
///
/// # Errors
/// When they differ, and when the VM gives none.
pub(super) async fn compare(operation: &Operation) -> Result<()> {
    let Some(verify) = &operation.migration.verify else {
        unseen(operation, "whether both sides answer alike", "the file has no `verify`");
        return Ok(());
    };
    let sides = sides(operation, verify).await?;
    let mut differing = 0;
    for call in &verify.calls {
        let differences = parity::differences(call, verify, &sides);
        let differences = operation.interrupt.unless(differences).await??;
        differing += usize::from(!differences.is_empty());
        operation.output.tell(&Event::Compared {
            call: &call.name(),
            differences: &differences,
        });
    }
    match differing {
        0 => Ok(()),
        _ => bail!(
            "VM and pods answer {differing} of {} calls differently",
            verify.calls.len()
        ),
    }
}

pub(super) fn unseen(operation: &Operation, what: &str, because: &str) {
    operation.output.tell(&Event::Unseen { what, because });
}

async fn sides(operation: &Operation, verify: &Verify) -> Result<Sides> {
    let given = |side: &Option<crate::migration::Text>| side.as_ref().map(ToString::to_string);
    if let (Some(vm), Some(pods)) = (given(&verify.vm), given(&verify.pods)) {
        return Ok(Sides { vm, pods });
    }
    let (worlds, migration) = (operation.worlds().await?, &operation.migration);
    let vm = given(&verify.vm).or_else(|| worlds.iter().find_map(|world| world.vm_address(migration)));
    let pods = given(&verify.pods).or_else(|| worlds.iter().find_map(|world| world.pod_address(migration)));
    Ok(Sides {
        vm: vm.context("no cluster says where the VM answers: name its address in verify.vm")?,
        pods: pods.context("no cluster says where a pod answers: name its address in verify.pods")?,
    })
}
