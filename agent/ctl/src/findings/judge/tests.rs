use serde_json::json;

use super::*;
use crate::migration::tests::{HOSTS, migration};
use crate::objects::{GRPC_ROUTES, HTTP_ROUTES};

/// Two clusters in which nothing is in the way.
fn worlds() -> [World; 2] {
    let root = Some("root".to_owned());
    let metadata = |name: &str| json!({ "name": name, "namespace": "boutique" });
    let mut entry = json!({ "metadata": metadata("catalog-10-0-0-3") });
    entry["metadata"]["annotations"] = json!({ "istio.io/autoRegistrationGroup": "catalog" });
    let mut slice = json!({ "endpoints": [{ "addresses": ["10.0.0.9"], "conditions": { "ready": true } }] });
    slice["metadata"]["labels"] = json!({ "kubernetes.io/service-name": "catalog-pods" });
    let one = World {
        cluster: "one".to_owned(),
        service: Some(json!({ "metadata": metadata("catalog") })),
        entries: vec![entry],
        group: Some(json!({ "spec": { "metadata": { "labels": { "app": "catalog" } } } })),
        root: root.clone(),
        ..World::default()
    };
    let two = World {
        cluster: "two".to_owned(),
        pods_service: Some(json!({ "metadata": metadata("catalog-pods"), "spec": { "selector": { "app": "pods" } } })),
        slices: vec![slice],
        root,
        ..World::default()
    };
    [one, two]
}

fn found(worlds: &[World]) -> Vec<(String, Forbids, String)> {
    found_of(HOSTS, worlds)
}

fn found_of(file: &str, worlds: &[World]) -> Vec<(String, Forbids, String)> {
    let findings = all(&migration(file), worlds);
    findings
        .into_iter()
        .map(|it| (it.cluster, it.forbids, it.problem))
        .collect()
}

fn only(worlds: &[World], cluster: &str, forbids: Forbids, words: &str) {
    let found = found(worlds);
    let [(of, what, problem)] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(
        of == cluster && *what == forbids && problem.contains(words),
        "{found:?}"
    );
}

fn object(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({ "metadata": { "name": name, "namespace": namespace }, "spec": spec })
}

#[test]
fn clusters_with_all_that_it_takes_have_no_finding() {
    assert_eq!(found(&worlds()), []);
}

#[test]
fn older_virtual_service_forbids_the_migration_however_it_writes_the_host() {
    for (namespace, host) in [("boutique", "catalog"), ("shop", "catalog.boutique.svc.cluster.local")] {
        let mut worlds = worlds();
        worlds[1].virtual_services = vec![object(namespace, "old", &json!({ "hosts": [host] }))];
        let words = format!("VirtualService {namespace}/old has the host too");
        only(&worlds, "two", Forbids::Everything, &words);
    }
    let mut worlds = worlds();
    worlds[1].virtual_services = vec![
        object("shop", "namesake", &json!({ "hosts": ["catalog"] })),
        object("boutique", "catalog-migration", &json!({ "hosts": ["catalog"] })),
    ];
    assert_eq!(found(&worlds), []);
}

#[test]
fn route_of_an_ingress_past_the_split_is_told() {
    let mut worlds = worlds();
    let route = json!([{ "route": [{ "destination": { "host": "catalog.boutique.svc.cluster.local" } }] }]);
    let spec = json!({ "hosts": ["shop.example"], "gateways": ["shop"], "http": route });
    worlds[0].virtual_services = vec![object("boutique", "shop", &spec)];
    only(&worlds, "one", Forbids::Nothing, "past the split");
}

#[test]
fn route_of_the_gateway_api_forbids_the_migration() {
    let mut worlds = worlds();
    let spec = json!({ "parentRefs": [{ "group": "", "kind": "Service", "name": "catalog" }] });
    worlds[0].gateway_routes = vec![(GRPC_ROUTES, object("boutique", "grpc", &spec))];
    only(
        &worlds,
        "one",
        Forbids::Everything,
        "grpcroute boutique/grpc of the Gateway API has the service, and beats",
    );
}

/// Each cluster has both Services, with the port of a route of the Gateway API.
fn worlds_with_both_services() -> [World; 2] {
    let mut worlds = worlds();
    let [service, pods] = [worlds[0].service.clone(), worlds[1].pods_service.clone()].map(|service| {
        let mut service = service.unwrap();
        service["spec"]["ports"] = json!([{ "name": "grpc", "port": 3550 }]);
        service
    });
    for world in &mut worlds {
        world.service = Some(service.clone());
        world.pods_service = Some(pods.clone());
    }
    worlds
}

#[test]
fn route_of_the_gateway_api_takes_both_services_in_each_cluster() {
    let file = format!("gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}");
    let mut worlds = worlds_with_both_services();
    assert_eq!(found_of(&file, &worlds), []);
    worlds[0].pods_service = None;
    worlds[1].service = None;
    assert_eq!(found(&worlds), []);
    let found = found_of(&file, &worlds);
    let told: Vec<_> = found
        .iter()
        .map(|(cluster, forbids, problem)| (cluster.as_str(), *forbids, problem.split(',').next().unwrap()))
        .collect();
    let expected = [
        ("one", Forbids::Everything, "there is no Service boutique/catalog-pods"),
        ("two", Forbids::Everything, "there is no Service boutique/catalog"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn beside_a_split_of_the_gateway_api_no_other_route_may_be() {
    let file = format!("gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}");
    let parents = json!({ "parentRefs": [{ "group": "", "kind": "Service", "name": "catalog" }] });
    let route = |kind, name| (kind, object("boutique", name, &parents));
    let mut worlds = worlds_with_both_services();
    worlds[0].gateway_routes = vec![route(GRPC_ROUTES, "catalog-migration")];
    assert_eq!(found_of(&file, &worlds), []);
    worlds[0]
        .gateway_routes
        .extend([route(HTTP_ROUTES, "catalog-migration"), route(GRPC_ROUTES, "other")]);
    worlds[0].virtual_services = vec![object(
        "boutique",
        "catalog-migration",
        &json!({ "hosts": ["catalog"] }),
    )];
    let found = found_of(&file, &worlds);
    let words = [
        "VirtualService boutique/catalog-migration",
        "grpcroute boutique/other",
        "httproute boutique/catalog-migration",
    ];
    let mut told: Vec<&str> = found.iter().map(|(_, _, problem)| problem.as_str()).collect();
    told.sort_unstable();
    assert_eq!(told.len(), words.len(), "{told:?}");
    for (problem, words) in told.iter().zip(words) {
        assert!(problem.starts_with(words), "{told:?}");
    }
}

#[test]
fn other_root_of_trust_forbids_the_migration() {
    let mut worlds = worlds();
    worlds[1].root = Some("another".to_owned());
    only(&worlds, "two", Forbids::Everything, "root of trust is not that of one");
}

#[test]
fn pods_that_are_not_ready_get_no_calls() {
    let mut unready = worlds();
    unready[1].slices[0]["endpoints"][0]["conditions"]["ready"] = json!(false);
    only(&unready, "all", Forbids::Pods, "no cluster has a ready pod");
    let wrong =
        json!({ "metadata": { "name": "catalog-1", "labels": { "app": "pods" } }, "status": { "phase": "Pending" } });
    unready[1].pods = vec![wrong.clone()];
    let told = found(&unready);
    assert!(
        matches!(&told[1], (_, Forbids::Pods, problem) if problem.contains("catalog-1")),
        "{told:?}"
    );
    let mut beside = worlds();
    beside[1].pods = vec![wrong];
    only(
        &beside,
        "two",
        Forbids::Nothing,
        "pod boutique/catalog-1 is not ready: Pending",
    );
    let mut absent = worlds();
    absent[1].pods_service = None;
    only(&absent, "all", Forbids::Pods, "boutique/catalog-pods");
}

#[test]
fn vm_that_is_gone_or_unhealthy_gets_no_calls() {
    let mut gone = worlds();
    gone[0].entries.clear();
    only(&gone, "all", Forbids::Vm, "no cluster has a healthy WorkloadEntry");
    let mut ill = worlds();
    ill[0].entries[0]["status"] = json!({ "conditions": [{ "type": "Healthy", "status": "False" }] });
    only(&ill, "all", Forbids::Vm, "no cluster has a healthy WorkloadEntry");
}

#[test]
fn policy_and_rule_of_the_vm_alone_are_told() {
    let mut worlds = worlds();
    worlds[1].group = worlds[0].group.clone();
    let selector = json!({ "selector": { "matchLabels": { "app": "catalog" } } });
    worlds[1].policies = vec![
        object("boutique", "deny", &selector),
        object("boutique", "all", &json!({})),
    ];
    only(&worlds, "two", Forbids::Nothing, "is about the VM and not the pods");
    worlds[1].policies.clear();
    worlds[0].rules = vec![object("boutique", "pool", &json!({ "host": "catalog" }))];
    only(&worlds, "one", Forbids::Nothing, "doesn't hold for the pods");
}
