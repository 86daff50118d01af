//! Findings that are in the way of a migration, or have to be known before it: read from all clusters, judged without
//! them.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod judge;
mod networks;
mod pods;
mod service;
mod world;

use anyhow::Result;
use futures_util::future::try_join_all;

use crate::cluster::{Cluster, Failure};
use crate::migration::Migration;
use crate::output::{Event, Output};
use crate::rights;

pub(crate) use judge::no_vm;
pub(crate) use service::{others_of_the_vm, protocol_of, selects};
#[cfg(test)]
pub(crate) use world::ENDPOINT_SLICES;
pub(crate) use world::{CONFIG_MAPS, PODS, SERVICES, WORKLOAD_ENTRIES, WORKLOAD_GROUPS, World};

/// One finding.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Finding {
    /// The cluster, or `all`.
    pub(crate) cluster: String,
    pub(crate) forbids: Forbids,
    /// The cause and what to do.
    pub(crate) problem: String,
}

/// The steps that a finding forbids.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Forbids {
    /// Any step.
    Everything,
    /// Sending calls to the pods.
    Pods,
    /// Sending calls to the VM.
    Vm,
    /// None; it is to be known.
    Nothing,
}

impl Forbids {
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Everything => "forbids the migration",
            Self::Pods => "forbids calls to the pods",
            Self::Vm => "forbids calls to the VM",
            Self::Nothing => "note",
        }
    }
}

impl Finding {
    pub(crate) fn tell(&self, output: Output) {
        output.tell(&Event::Finding {
            cluster: &self.cluster,
            forbids: self.forbids.words(),
            problem: &self.problem,
        });
    }
}

/// All findings, of rights first: without them there is nothing to read.
pub(crate) async fn find(clusters: &[Cluster], migration: &Migration) -> Result<Vec<Finding>> {
    let missing = try_join_all(clusters.iter().map(|cluster| rights::missing(cluster, migration))).await?;
    let mut findings = Vec::new();
    for (cluster, missing) in clusters.iter().zip(missing) {
        findings.extend(missing.into_iter().map(|right| Finding {
            cluster: cluster.name().to_owned(),
            forbids: Forbids::Everything,
            problem: format!("no right to {right}: `istio-vm-ctl role` prints the Role"),
        }));
    }
    if !findings.is_empty() {
        return Ok(findings);
    }
    Ok(judge::all(migration, &worlds(clusters, migration).await?))
}

/// All clusters as they are now.
pub(crate) async fn worlds(clusters: &[Cluster], migration: &Migration) -> Result<Vec<World>> {
    try_join_all(clusters.iter().map(|cluster| World::read(cluster, migration))).await
}

/// The pods that calls would be sent to and that can't take them; they forbid it where no other can.
pub(crate) fn of_pods(migration: &Migration, worlds: &[World]) -> Vec<Finding> {
    judge::pods(migration, worlds)
}

/// A cluster of which the VMs' registrations alone are read.
pub(crate) async fn registrations(cluster: &Cluster, migration: &Migration) -> Result<World, Failure> {
    Ok(World {
        cluster: cluster.name().to_owned(),
        entries: cluster.list(WORKLOAD_ENTRIES, migration.namespace.as_str()).await?,
        ..World::default()
    })
}

/// The routes of others that go to the VM's Service past the split, in words.
pub(crate) fn past_the_split(migration: &Migration, world: &World) -> Vec<String> {
    let told = judge::routes(migration, world).into_iter();
    told.map(|(_, problem)| format!("{}: {problem}", world.cluster))
        .collect()
}
