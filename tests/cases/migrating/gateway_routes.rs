//! A split by routes of the Gateway API whose parent is the Service.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::kubernetes::{As, GATEWAY_KINDS};
use e2e::{PATIENCE, eventually};
use serde_json::json;

use super::callers::{Callers, following};
use super::world::{ACCOUNT, World, pod};

pub(super) const GRPC_ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/onlineboutique/grpcroutes";
const OTHER: &str =
    "{apiVersion: gateway.networking.k8s.io/v1, kind: HTTPRoute, metadata: {name: other, namespace: onlineboutique},
    spec: {parentRefs: [{group: '', kind: Service, name: productcatalogservice}],
           rules: [{backendRefs: [{name: productcatalogservice, port: 3550}]}]}}";
const REFUSAL: &str = "istio.io/gateway-controller refuses it: ResolvedRefs is false: BackendNotFound: no such Service";

pub(super) fn split() -> Result<()> {
    let world = World::start()?;
    world.write_file(&key("GRPCRoute"), "")?;
    world.refused(
        &["apply"],
        "the cluster has no grpcroutes of gateway.networking.k8s.io/v1",
    )?;
    for cluster in &world.clusters {
        cluster.apply(GATEWAY_KINDS)?;
        eventually("the kinds of the Gateway API", PATIENCE, || {
            cluster.get(GRPC_ROUTES)?;
            cluster.get(&http_routes()).map(drop)
        })?;
    }
    others_are_named(&world)?;
    let before = world.objects()?;
    world.clusters[0].apply(ACCOUNT)?;
    world.clusters[0].apply(&pod("cart"))?;
    with_the_printed_roles(&world, "GRPCRoute", "istiod = '10.200.0.2:15012'")?;
    let callers = Callers::start(&world)?;
    following(&world, || moved(&world, &callers))?;
    nothing_is_left(&world, GRPC_ROUTES)?;

    with_the_printed_roles(&world, "HTTPRoute", "")?;
    world.done(&["apply"])?;
    world.done(&["shift", "20"])?;
    as_it_was_applied(&world)?;
    world.done(&["undo"])?;
    nothing_is_left(&world, &http_routes())?;
    ensure!(world.objects()? == before, "an object is not as before");
    Ok(())
}

/// A refusal of the mesh's controller is told at once, as long as it is of the route's present state, and keeps no
/// call from the VM.
fn refusal_is_told(world: &World) -> Result<()> {
    resolved(world, 1, "False", 0)?;
    for arguments in [["status"].as_slice(), &["verify"], &["shift", "20"]] {
        world.refused(arguments, REFUSAL)?;
    }
    // One has an istiod to ask, two has none.
    resolved(world, 0, "False", 1)?;
    resolved(world, 1, "False", 1)?;
    let told = world.done(&["return"])?;
    ensure!(told.matches(REFUSAL).count() == 2, "{told}");
    world.refused(&["status"], REFUSAL)?;
    resolved(world, 0, "True", 0)?;
    resolved(world, 1, "True", 0)
}

/// Writes a verdict of the mesh's controller on a cluster's route as it is, or will be after so many changes.
fn resolved(world: &World, at: usize, status: &str, ahead: u64) -> Result<()> {
    let (cluster, path) = (
        &world.clusters[at],
        format!("{GRPC_ROUTES}/productcatalogservice-migration"),
    );
    let generation = cluster.get(&path)?["metadata"]["generation"].as_u64();
    let condition = json!({ "type": "ResolvedRefs", "status": status, "reason": "BackendNotFound", "message": "no such Service",
        "observedGeneration": generation.context("a route without a generation")? + ahead,
        "lastTransitionTime": "2026-11-27T00:00:00Z" });
    let parent = json!({ "controllerName": "istio.io/gateway-controller", "conditions": [condition],
        "parentRef": { "group": "", "kind": "Service", "name": "productcatalogservice" } });
    let body = json!({ "status": { "parents": [parent] } });
    let (admin, path) = (As::Token(cluster.token("admin")?), format!("{path}/status"));
    let answer = cluster.ask(&admin, "PATCH", &path, "application/merge-patch+json", &body)?;
    answer.expect_success().map(drop)
}

fn moved(world: &World, callers: &Callers<'_>) -> Result<()> {
    let calling = callers.call()?;
    for (arguments, share) in [(["apply"].as_slice(), 0), (&["shift", "20"], 20), (&["return"], 0)] {
        world.done(arguments)?;
        callers
            .expect_share(share)
            .with_context(|| format!("after {arguments:?}"))?;
        as_it_was_applied(world)?;
        if share == 20 {
            refusal_is_told(world)?;
        }
    }
    world.done(&["undo"])?;
    callers.expect_share(0)?;
    for calling in calling {
        calling.stop()?.expect_all_answered()?;
    }
    Ok(())
}

/// Defaults that the API server adds to the route count as no change of somebody else's.
fn as_it_was_applied(world: &World) -> Result<()> {
    let plan = world.done(&["plan"])?;
    ensure!(plan.matches("nothing to change").count() == 2, "{plan}");
    world.done(&["status"]).map(drop)
}

/// Routes of others stay in the way.
fn others_are_named(world: &World) -> Result<()> {
    world.clusters[1].apply(OTHER)?;
    for more in [key("GRPCRoute"), String::new()] {
        world.write_file(&more, "")?;
        world.refused(
            &["apply"],
            "httproute onlineboutique/other of the Gateway API has the service",
        )?;
    }
    world.clusters[1].delete(OTHER)
}

fn nothing_is_left(world: &World, routes: &str) -> Result<()> {
    for cluster in &world.clusters {
        let left = cluster.get(routes)?;
        ensure!(left["items"] == json!([]), "{left}");
    }
    Ok(())
}

/// Writes the file for an operator who has no rights but those of the Roles.
fn with_the_printed_roles(world: &World, kind: &str, of_one: &str) -> Result<()> {
    world.write_file(&key(kind), of_one)?;
    for (cluster, name) in world.clusters.iter().zip(["one", "two"]) {
        cluster.kubeconfig("jane")?;
        cluster.apply(&world.done(&["role", "--user", "jane", "--cluster", name])?)?;
    }
    let text = fs::read_to_string(world.file())?.replace("kubeconfig-admin", "kubeconfig-jane");
    fs::write(world.file(), text).map_err(Into::into)
}

fn key(kind: &str) -> String {
    format!("gateway_route = {{ kind = '{kind}', port = 3550 }}")
}

fn http_routes() -> String {
    GRPC_ROUTES.replace("grpc", "http")
}
