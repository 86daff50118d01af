//! The arrival of a change at the proxies that call the service: istiod is asked what it has given to each.
//!
//! An API server that has taken an object says nothing of Envoy. istiod's debug interface, over its ordinary port and for
//! any service account of a namespace, tells what each proxy of that namespace was sent (istio/pilot/pkg/xds/debuggen.go).

mod dump;
mod istiod;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::migration::{Migration, Name};
use crate::objects::Kind;
use crate::output::{Event, Output};

pub(crate) use dump::Sign;
use istiod::Istiod;

const PODS: Kind = Kind {
    api: "v1",
    plural: "pods",
};
/// Time between two questions.
const PERIOD: Duration = Duration::from_millis(200);
/// Time between what istiod sends and Envoy's routes; 20 ms were measured.
const ENVOYS_OWN: Duration = Duration::from_secs(1);

/// Completes when every proxy of the cluster that calls the service has the change that `sign` shows.
pub(crate) async fn wait(cluster: &Cluster, migration: &Migration, sign: &Sign, output: Output) -> Result<()> {
    let start = Instant::now();
    let Some(address) = &cluster.entry.istiod else {
        tokio::time::sleep(migration.settle).await;
        output.tell(&Event::Settled {
            cluster: cluster.name(),
            milliseconds: start.elapsed().as_millis(),
            because: "the file has no `istiod` to ask whether it has arrived",
        });
        return Ok(());
    };
    let mut proxies = 0;
    for namespace in migration.namespaces(&cluster.entry) {
        let names = sidecars(cluster, namespace).await?;
        proxies += names.len();
        if names.is_empty() {
            continue;
        }
        let istiod = Istiod::of(cluster, namespace, address.as_str(), migration).await?;
        all_have(&istiod, names, migration, sign, start + migration.patience).await?;
    }
    let milliseconds = start.elapsed().as_millis();
    tokio::time::sleep(ENVOYS_OWN).await;
    output.tell(&Event::Arrived {
        cluster: cluster.name(),
        proxies,
        milliseconds,
    });
    Ok(())
}

/// Asks again for those that don't have it yet, each time by a new connection: of several istiods each knows its own
/// proxies alone.
async fn all_have(
    istiod: &Istiod<'_>,
    names: Vec<String>,
    migration: &Migration,
    sign: &Sign,
    deadline: Instant,
) -> Result<()> {
    let mut missing: BTreeMap<String, String> = names.into_iter().map(|name| (name, String::new())).collect();
    loop {
        for (name, answer) in istiod.dumps(missing.keys(), sign.resource_type()).await {
            match answer.and_then(|text| sign.is_in(&text, migration)) {
                Ok(true) => drop(missing.remove(&name)),
                Ok(false) => drop(missing.insert(name, "istiod has given it an older configuration".to_owned())),
                Err(error) => drop(missing.insert(name, format!("{error:#}"))),
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let told: Vec<String> = missing.iter().map(|(name, why)| format!("\n  {name}: {why}")).collect();
            bail!(
                "cluster {}: after {} these proxies don't have it:{}",
                istiod.cluster_name(),
                humantime::format_duration(migration.patience),
                told.concat()
            );
        }
        tokio::time::sleep(PERIOD).await;
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
