//! The arrival of a change at the proxies that call the service: istiod is asked what it has given to each.
//!
//! An API server that has taken an object says nothing of Envoy. istiod's debug interface, over its ordinary port and for
//! any service account of a namespace, tells what each proxy of that namespace was sent (istio/pilot/pkg/xds/debuggen.go).

mod calls;
mod connections;
mod dump;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod istiod;
mod reach;

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::findings::{Forbids, PODS};
use crate::migration::{Migration, Name};
use crate::output::{Event, Output};
use crate::step;

pub(crate) use dump::Sign;
use istiod::Istiod;
pub(crate) use reach::reach;

/// Time from a change to the first question. Asked about a proxy that is about to be given a change, istiod computes the
/// old configuration, keeps it, and gives that (`getConfigDumpByResourceType` in istio/pilot/pkg/xds/debug.go fills the
/// cache with what `LastPushContext` says, as of now). Changes were given within 350 ms.
const QUIET: Duration = Duration::from_secs(1);
/// Time between two questions.
const PERIOD: Duration = Duration::from_millis(500);
/// Time between what istiod sends and Envoy's routes; 20 ms were measured.
const ENVOYS_OWN: Duration = Duration::from_secs(1);

/// The error of proxies that don't have a change in time.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
pub(crate) struct Missing {
    told: String,
    /// True when istiod has given an older configuration to one of them.
    pub(crate) is_older: bool,
}

/// Fate of the wait for a split that the mesh doesn't take.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OnRefusal {
    /// The wait ends.
    End,
    /// The wait goes on, and the refusal is told.
    Tell,
}

/// A proxy that doesn't have a change.
struct Lack {
    told: String,
    /// True when istiod has given it an older configuration; else it can't be asked after.
    is_older: bool,
}

/// Completes when every proxy of the cluster that calls the service has the change that `sign` shows.
///
/// # Errors
/// With [`Missing`] when one doesn't have it after `patience`, and at once where istiod refuses a split for which that ends
/// the wait.
pub(crate) async fn wait(
    cluster: &Cluster,
    migration: &Migration,
    sign: &Sign,
    patience: Duration,
    on_refusal: OnRefusal,
    output: Output,
) -> Result<()> {
    let start = Instant::now();
    let Some(address) = &cluster.entry.istiod else {
        tokio::time::sleep(migration.settle).await;
        refuse(cluster, migration, on_refusal, output).await?;
        output.tell(&Event::Settled {
            cluster: cluster.name(),
            milliseconds: start.elapsed().as_millis(),
            because: "the file has no `istiod` to ask whether it has arrived",
        });
        return Ok(());
    };
    tokio::time::sleep(QUIET.min(patience)).await;
    let mut proxies = 0;
    for namespace in migration.namespaces(&cluster.entry) {
        if sidecars(cluster, namespace).await?.is_empty() {
            continue;
        }
        let istiod = Istiod::of(cluster, namespace, address.as_str(), migration).await?;
        proxies += all_have(&istiod, migration, sign, start + patience, on_refusal, output).await?;
    }
    let milliseconds = start.elapsed().as_millis();
    tokio::time::sleep(ENVOYS_OWN).await;
    refuse(cluster, migration, on_refusal, output).await?;
    output.tell(&Event::Arrived {
        cluster: cluster.name(),
        proxies,
        milliseconds,
    });
    Ok(())
}

/// Fails, or tells, where the mesh doesn't take the split as it is. One that can't be read for a moment is no reason.
async fn refuse(cluster: &Cluster, migration: &Migration, on_refusal: OnRefusal, output: Output) -> Result<()> {
    let standing = step::read_one(cluster, migration).await.ok();
    match (standing.and_then(|it| it.refusal), on_refusal) {
        (Some(why), OnRefusal::End) => bail!("{}: {why}; `return` sends all calls to the VM", cluster.name()),
        (Some(problem), OnRefusal::Tell) => {
            let forbids = Forbids::Nothing.words();
            output.tell(&Event::Finding {
                cluster: cluster.name(),
                forbids,
                problem: &problem,
            });
            Ok(())
        }
        (None, _) => Ok(()),
    }
}

/// Asks again for those that don't have it yet, each time by a new connection: of several istiods each knows its own
/// proxies alone. Pods come and go meanwhile, and those of the moment count; their number.
async fn all_have(
    istiod: &Istiod<'_>,
    migration: &Migration,
    sign: &Sign,
    deadline: Instant,
    on_refusal: OnRefusal,
    output: Output,
) -> Result<usize> {
    let cluster = istiod.cluster();
    let mut have = BTreeSet::new();
    loop {
        let missing = match sidecars(cluster, istiod.namespace()).await {
            Ok(present) => {
                let unknown: Vec<String> = present.iter().filter(|name| !have.contains(*name)).cloned().collect();
                let missing = ask(istiod, unknown, migration, sign, &mut have).await;
                if missing.is_empty() {
                    return Ok(present.len());
                }
                missing
            }
            Err(failure) => vec![Lack {
                told: format!("{failure:#}"),
                is_older: false,
            }],
        };
        let is_late = Instant::now() >= deadline;
        if is_late || on_refusal == OnRefusal::End {
            refuse(cluster, migration, on_refusal, output).await?;
        }
        if is_late {
            return Err(missing_in(cluster, migration, &missing).into());
        }
        tokio::time::sleep(PERIOD).await;
    }
}

/// Moves the proxies that have it to `have`; the others, with the reason.
async fn ask(
    istiod: &Istiod<'_>,
    names: Vec<String>,
    migration: &Migration,
    sign: &Sign,
    have: &mut BTreeSet<String>,
) -> Vec<Lack> {
    if names.is_empty() {
        return Vec::new();
    }
    let mut missing = Vec::new();
    for (name, answer) in istiod.dumps(names, sign.resource_type()).await {
        let (told, is_older) = match answer.and_then(|dump| sign.is_in(&dump, migration)) {
            Ok(true) => {
                have.insert(name);
                continue;
            }
            Ok(false) => (format!("{name}: istiod has given it an older configuration"), true),
            Err(error) => (format!("{name}: {error:#}"), false),
        };
        missing.push(Lack { told, is_older });
    }
    missing.sort_by(|a, b| a.told.cmp(&b.told));
    missing
}

fn missing_in(cluster: &Cluster, migration: &Migration, lacks: &[Lack]) -> Missing {
    let told: Vec<&str> = lacks.iter().map(|lack| lack.told.as_str()).collect();
    Missing {
        told: format!(
            "cluster {}: after {} these proxies don't have it:\n  {}",
            cluster.name(),
            humantime::format_duration(migration.patience),
            told.join("\n  ")
        ),
        is_older: lacks.iter().any(|lack| lack.is_older),
    }
}

/// The ids (`POD.NAMESPACE`) of the running pods that have a sidecar.
async fn sidecars(cluster: &Cluster, namespace: &Name) -> Result<Vec<String>> {
    let pods = cluster.list(PODS, namespace.as_str()).await?;
    let has_sidecar = pods.iter().filter(|pod| {
        let metadata = &pod["metadata"];
        let is_injected = !metadata["annotations"]["sidecar.istio.io/status"].is_null()
            || metadata["labels"]["security.istio.io/tlsMode"] == "istio";
        is_injected && metadata["deletionTimestamp"].is_null() && pod["status"]["phase"] == "Running"
    });
    let names = has_sidecar.filter_map(|pod| pod["metadata"]["name"].as_str());
    Ok(names.map(|name| format!("{name}.{namespace}")).collect())
}
