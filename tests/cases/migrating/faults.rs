//! What goes wrong between two clusters.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::kubernetes::As;
use e2e::{PATIENCE, eventually};
use serde_json::json;

use super::world::{ROUTE, World, end};

/// Has the second cluster's API server refuse any share but none.
const POLICY: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: all-to-the-vm}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [networking.istio.io], apiVersions: [v1], operations: [CREATE, UPDATE], resources: [virtualservices]}]
  validations: [{expression: 'object.spec.http[0].route[1].weight == 0', message: no pods today}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: all-to-the-vm}
spec: {policyName: all-to-the-vm, validationActions: [Deny]}
";

pub(super) fn half_steps() -> Result<()> {
    let world = World::start()?;
    world.done(&["apply"])?;
    a_cluster_refuses(&world)?;
    the_program_is_killed(&world)?;
    two_operators(&world)
}

fn a_cluster_refuses(world: &World) -> Result<()> {
    world.clusters[1].apply(POLICY)?;
    eventually("the policy is in force", PATIENCE, || {
        world.refused(&["shift", "20", "--dry-run"], "no pods today")
    })?;
    world.refused(&["shift", "20"], "no pods today")?;
    world.expect([100, 0])?;
    let status = world.done(&["status"])?;
    ensure!(status.matches("pods get 0 %, change 1").count() == 2, "{status}");
    world.clusters[1].delete(POLICY)?;
    eventually("the policy is gone", PATIENCE, || {
        world.done(&["shift", "20", "--dry-run"]).map(drop)
    })?;
    world.done(&["shift", "20"])?;
    world.expect([80, 20])?;
    world.done(&["return"]).map(drop)
}

pub(super) fn dead_api_server() -> Result<()> {
    let mut world = World::start()?;
    world.done(&["apply"])?;
    world.done(&["shift", "50"])?;
    world.clusters[1].kill()?;
    world.refused(&["shift", "80"], "cluster two: failed to get virtualservices")?;
    ensure!(world.weights(0)? == [50, 50], "a shift moved one cluster");
    world.refused(&["return"], "not all clusters were brought back")?;
    ensure!(
        world.weights(0)? == [100, 0],
        "the cluster that lives was not brought back"
    );
    let World { clusters, network, .. } = &mut world;
    clusters[1].restart(network)?;
    ensure!(world.weights(1)? == [50, 50], "a dead cluster moved");
    world.refused(&["status"], "cut in half")?;
    world.done(&["return"])?;
    world.expect([100, 0])
}

fn the_program_is_killed(world: &World) -> Result<()> {
    // As kill -9 leaves it: one cluster has the step.
    let whole = fs::read_to_string(world.file())?;
    let of_one = whole.rsplit_once("[[clusters]]").context("no clusters")?.0;
    fs::write(world.file(), of_one)?;
    world.done(&["shift", "20"])?;
    fs::write(world.file(), &whole)?;
    ensure!(
        [world.weights(0)?, world.weights(1)?] == [[80, 20], [100, 0]],
        "it is no half"
    );
    world.refused(&["status"], "cut in half")?;
    world.refused(&["pause"], "cut in half")?;
    world.refused(&["apply"], "cut in half")?;
    world.done(&["shift", "20"])?;
    world.expect([80, 20])?;
    world.done(&["status"]).map(drop)
}

fn two_operators(world: &World) -> Result<()> {
    for round in 0..5_u32 {
        let shares = [(10 + round).to_string(), (60 + round).to_string()];
        let mut running = Vec::new();
        for share in &shares {
            running.push(world.spawn(&["shift", share])?);
        }
        let mut told = String::new();
        for child in running {
            told += &end(child)?.text;
        }
        ensure!(world.ctl(&["status"])?.is_success, "round {round}: {told}");
        ensure!(world.weights(0)? == world.weights(1)?, "round {round}: {told}");
    }
    Ok(())
}

pub(super) fn foreign_objects() -> Result<()> {
    let world = World::start()?;
    let older = "{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: canary, namespace: onlineboutique},
        spec: {hosts: [productcatalogservice], http: [{route: [{destination: {host: productcatalogservice}}]}]}}";
    world.clusters[1].apply(older)?;
    let before = world.objects()?;
    for verb in ["plan", "apply"] {
        world.refused(
            &[verb],
            "two: forbids the migration: VirtualService onlineboutique/canary has the host too",
        )?;
    }
    ensure!(world.objects()? == before, "a refusal changed something");
    world.clusters[1].delete(older)?;

    world.done(&["apply"])?;
    world.done(&["shift", "20"])?;
    let mut theirs = world.clusters[0].get(ROUTE)?;
    let weights = [("productcatalogservice", 100), ("productcatalogservice-gke", 0)].map(|(name, weight)| {
        let host = format!("{name}.onlineboutique.svc.cluster.local");
        json!({ "destination": { "host": host }, "weight": weight })
    });
    theirs["spec"]["http"][0]["route"] = json!(weights);
    theirs["metadata"]["managedFields"] = json!([]);
    let path = format!("{ROUTE}?fieldManager=argocd-controller&force=true");
    let admin = As::Token(world.clusters[0].token("admin")?);
    let body = json!({ "apiVersion": theirs["apiVersion"], "kind": theirs["kind"], "spec": theirs["spec"],
        "metadata": { "name": theirs["metadata"]["name"], "namespace": "onlineboutique" } });
    let answer = world.clusters[0].ask(&admin, "PATCH", &path, "application/apply-patch+yaml", &body)?;
    answer.expect_success()?;
    world.refused(&["status"], "argocd-controller has changed them")?;
    world.refused(&["shift", "50"], "argocd-controller has changed them")
}
