//! Faults between two clusters.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::kubernetes::As;
use e2e::{PATIENCE, eventually};
use serde_json::{Value, json};

use super::admission::Admission;
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
    let admission = Admission::start(&world.desk())?;
    world.done(&["apply"])?;
    world.done(&["shift", "50"])?;
    admission.hold();
    let shift = world.spawn(&["shift", "60"])?;
    admission.wait_for_write()?;
    eventually("the first cluster has it", PATIENCE, || {
        ensure!(world.weights(0)? == [40, 60], "not yet");
        Ok(())
    })?;
    world.clusters[1].kill()?;
    let ended = end(shift)?;
    let words = "cluster two may stay at 60 % while the others don't";
    ensure!(!ended.is_success && ended.text.contains(words), "{ended:?}");
    ensure!(world.weights(0)? == [50, 50], "the cluster that lives was not put back");
    admission.allow();

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
    let back = json!([{ "name": "istio-vm-ctl-2", "route": weights(100, 0) }]);
    write_routes(&world, "argocd-controller", &back)?;
    world.refused(&["status"], "argocd-controller has changed them")?;
    world.refused(&["shift", "50"], "argocd-controller has changed them")?;
    world.done(&["return"])?;
    world.expect([100, 0])?;
    world.done(&["shift", "20"])?;
    world.done(&["status"])?;

    // The split is the same, and yet it is no longer this program's.
    let renamed = json!([{ "name": "mine", "route": weights(80, 20) }]);
    write_routes(&world, "kubectl-edit", &renamed)?;
    for arguments in [["shift", "50"].as_slice(), &["pause"], &["apply"]] {
        world.refused(
            arguments,
            "one: virtualservice productcatalogservice-migration: kubectl-edit manages its routes",
        )?;
    }
    world.expect([80, 20])?;
    world.done(&["shift", "50", "--print"])?;
    world.done(&["return", "--dry-run"])?;
    world.expect([80, 20])?;
    world.done(&["return"])?;
    world.expect([100, 0])?;
    world.done(&["shift", "50"])?;
    world.expect([50, 50])
}

/// Both destinations of the split.
fn weights(vm: u8, pods: u8) -> Value {
    let destination = |name: &str, weight: u8| {
        let host = format!("{name}.onlineboutique.svc.cluster.local");
        json!({ "destination": { "host": host }, "weight": weight })
    };
    json!([
        destination("productcatalogservice", vm),
        destination("productcatalogservice-gke", pods)
    ])
}

/// Has another manager write the routes of the first cluster, by force.
fn write_routes(world: &World, manager: &str, http: &Value) -> Result<()> {
    let theirs = world.clusters[0].get(ROUTE)?;
    let body = json!({
        "apiVersion": theirs["apiVersion"], "kind": theirs["kind"],
        "metadata": { "name": theirs["metadata"]["name"], "namespace": "onlineboutique" },
        "spec": { "hosts": theirs["spec"]["hosts"], "http": http },
    });
    let path = format!("{ROUTE}?fieldManager={manager}&force=true");
    let admin = As::Token(world.clusters[0].token("admin")?);
    let answer = world.clusters[0].ask(&admin, "PATCH", &path, "application/apply-patch+yaml", &body)?;
    answer.expect_success().map(drop)
}
