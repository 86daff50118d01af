use super::*;
use crate::migration::tests::{HOSTS, migration};

pub(crate) fn position(share: u8) -> Position {
    Position {
        share: Share::try_from(share).unwrap(),
        epoch: 7,
        since: "2026-11-26T18:00:00Z".to_owned(),
        by: "jane@desk (12)".to_owned(),
    }
}

fn subsets() -> Migration {
    let labels = "labels = { 'topology.istio.io/cluster' = 'one' }";
    let text = HOSTS.replace(
        "workload_group = 'catalog'",
        &format!("workload_group = 'catalog', {labels}"),
    );
    migration(&text.replace("service = 'catalog-pods'", &labels.replace("one", "two")))
}

#[test]
fn hosts_are_split_by_weights_of_fully_qualified_names() {
    let route = route(&migration(HOSTS), &position(20));
    let expected = json!([{ "name": "istio-vm-ctl-7", "route": [
        { "destination": { "host": "catalog.boutique.svc.cluster.local" }, "weight": 80 },
        { "destination": { "host": "catalog-pods.boutique.svc.cluster.local" }, "weight": 20 },
    ]}]);
    assert_eq!(route["spec"]["http"], expected);
    assert_eq!(route["metadata"]["name"], "catalog-migration");
    assert!(destination_rule(&migration(HOSTS)).is_none());
}

#[test]
fn subsets_are_those_that_the_rule_makes() {
    let migration = subsets();
    let rule = destination_rule(&migration).unwrap();
    let route = route(&migration, &position(50));
    for side in [0, 1] {
        let made = &rule["spec"]["subsets"][side]["name"];
        assert_eq!(&route["spec"]["http"][0]["route"][side]["destination"]["subset"], made);
    }
    assert_eq!(
        rule["spec"]["subsets"][1]["labels"],
        json!({ "topology.istio.io/cluster": "two" })
    );
}

#[test]
fn connections_are_split_by_routes_of_tcp() {
    let migration = migration(&format!("protocol = 'tcp'\n{HOSTS}"));
    let route = route(&migration, &position(20));
    let expected = json!([{ "route": [
        { "destination": { "host": "catalog.boutique.svc.cluster.local" }, "weight": 80 },
        { "destination": { "host": "catalog-pods.boutique.svc.cluster.local" }, "weight": 20 },
    ]}]);
    assert_eq!(route["spec"]["tcp"], expected);
    assert!(route["spec"]["http"].is_null());
    assert_eq!(share_in_force(&migration, &route), Some(position(20).share));
}

#[test]
fn route_of_the_gateway_api_has_the_service_for_parent() {
    let of = |kind: &str| migration(&format!("gateway_route = {{ kind = '{kind}', port = 3550 }}\n{HOSTS}"));
    let grpc = route(&of("GRPCRoute"), &position(20));
    let backend = |name: &str, weight: u8| json!({ "group": "", "kind": "Service", "name": name, "port": 3550, "weight": weight });
    let expected = json!({
        "parentRefs": [{ "group": "", "kind": "Service", "name": "catalog" }],
        "rules": [{ "backendRefs": [backend("catalog", 80), backend("catalog-pods", 20)] }],
    });
    assert_eq!(grpc["spec"], expected);
    assert_eq!(
        [&grpc["apiVersion"], &grpc["kind"]],
        ["gateway.networking.k8s.io/v1", "GRPCRoute"]
    );
    let http = route(&of("HTTPRoute"), &position(20));
    assert_eq!(http["kind"], "HTTPRoute");
    // What the API server would add.
    assert_eq!(
        http["spec"]["rules"][0]["matches"],
        json!([{ "path": { "type": "PathPrefix", "value": "/" } }])
    );
    assert_eq!(route_kind(&of("HTTPRoute")).singular(), "httproute");
}

#[test]
fn share_of_a_route_of_the_gateway_api_is_that_of_its_weights() {
    let migration = migration(&format!(
        "gateway_route = {{ kind = 'GRPCRoute', port = 3550 }}\n{HOSTS}"
    ));
    for share in [0, 20, 100] {
        let route = route(&migration, &position(share));
        assert_eq!(Position::of(&route).unwrap(), position(share));
        assert_eq!(share_in_force(&migration, &route), Some(position(share).share));
    }
    for (at, other) in [
        ("/rules/0/backendRefs/0/weight", json!(100)),
        ("/rules/0/backendRefs/1/port", json!(80)),
        ("/rules/0/backendRefs/1/name", json!("elsewhere")),
        ("/parentRefs/0/name", json!("elsewhere")),
    ] {
        let mut route = route(&migration, &position(20));
        *route["spec"].pointer_mut(at).unwrap() = other;
        assert_eq!(share_in_force(&migration, &route), None, "{at}");
    }
}

#[test]
fn position_is_read_back_from_the_object_alone() {
    for share in [0, 20, 100] {
        let route = route(&subsets(), &position(share));
        assert_eq!(Position::of(&route).unwrap(), position(share));
        assert_eq!(share_in_force(&subsets(), &route), Some(position(share).share));
    }
    let bare = json!({ "metadata": {} });
    let error = Position::of(&bare).unwrap_err().to_string();
    assert!(error.contains("istio-vm-agent.io/share is missing"), "{error}");
}

#[test]
fn weights_of_somebody_else_are_no_share_of_ours() {
    let migration = migration(HOSTS);
    let mut object = route(&migration, &position(20));
    object["spec"]["http"][0]["route"][0]["weight"] = json!(100);
    assert_eq!(share_in_force(&migration, &object), None);
    let mut object = route(&migration, &position(20));
    object["spec"]["http"][0]["route"][1]["destination"]["host"] = json!("elsewhere");
    assert_eq!(share_in_force(&migration, &object), None);
    let mut object = route(&migration, &position(20));
    object["spec"]["hosts"] = json!(["elsewhere"]);
    assert_eq!(share_in_force(&migration, &object), None);
}

#[test]
fn foreign_manager_of_routes_is_named_and_the_last_first() {
    let of = |manager: &str, second: u8, fields: Value| {
        let time = format!("2026-01-01T00:00:0{second}Z");
        json!({ "manager": manager, "time": time, "fieldsV1": fields })
    };
    let http = json!({ "f:spec": { "f:http": {} } });
    let object = json!({ "metadata": { "managedFields": [
        of(MANAGER, 3, http.clone()),
        of("kubectl-edit", 1, http.clone()),
        of("argocd-controller", 2, http),
        of("helm", 0, json!({ "f:spec": { "f:tcp": {} } })),
        of("flux", 4, json!({ "f:spec": { "f:rules": {} } })),
        of("kubectl-patch", 8, json!({ "f:spec": { "f:hosts": {} } })),
        of("pilot", 9, json!({ "f:status": {} })),
    ] } });
    let expected = ["flux", "argocd-controller", "kubectl-edit", "helm"];
    assert_eq!(foreign_managers(&object), expected);
}

#[test]
fn anything_else_in_the_split_is_a_change_by_somebody() {
    let migration = migration(HOSTS);
    let (http, spec) = ("/spec/http/0", "/spec");
    for (at, key, value) in [
        (spec, "gateways", json!(["shop"])),
        (spec, "exportTo", json!(["."])),
        (spec, "tcp", json!([{ "route": [] }])),
        (http, "match", json!([{ "port": 81 }])),
        (http, "fault", json!({ "abort": { "httpStatus": 500 } })),
    ] {
        let mut route = route(&migration, &position(20));
        route.pointer_mut(at).unwrap()[key] = value;
        assert_eq!(share_in_force(&migration, &route), None, "{key}");
    }
    let mut renamed = route(&migration, &position(20));
    renamed["spec"]["http"][0]["name"] = json!("mine");
    assert_eq!(share_in_force(&migration, &renamed), Some(position(20).share));
    renamed["spec"]["http"][0]["route"][0]["weight"] = json!(u64::MAX);
    assert_eq!(share_in_force(&migration, &renamed), None);
}

#[test]
fn whoever_changed_it_is_one_line() {
    let mut route = route(&migration(HOSTS), &position(20));
    route["metadata"]["annotations"][BY] = json!("jane\ntwo: pods get 100 %");
    assert_eq!(Position::of(&route).unwrap().by, "jane two: pods get 100 %");
}
