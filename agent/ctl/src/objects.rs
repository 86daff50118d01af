//! The objects of a migration, from the file and a position to JSON and back. Pure.
//!
//! The position stands in annotations of the route of every cluster: no machine of an operator keeps any of it.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gateway;

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::migration::{Form, GatewayRouteKind, Migration, Protocol, Share};

pub(crate) use gateway::refusal;

/// The field manager of all that is applied, and the label of all that is made.
pub(crate) const MANAGER: &str = "istio-vm-ctl";

const SHARE: &str = "istio-vm-agent.io/share";
const EPOCH: &str = "istio-vm-agent.io/epoch";
const SINCE: &str = "istio-vm-agent.io/since";
const BY: &str = "istio-vm-agent.io/by";

const VM_SUBSET: &str = "vm";
const PODS_SUBSET: &str = "pods";

/// A kind of Kubernetes' API.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Kind {
    /// Group and version.
    pub(crate) api: &'static str,
    /// The resource's name in paths and in rules of RBAC.
    pub(crate) plural: &'static str,
}

pub(crate) const VIRTUAL_SERVICES: Kind = Kind {
    api: "networking.istio.io/v1",
    plural: "virtualservices",
};
pub(crate) const GRPC_ROUTES: Kind = Kind {
    api: "gateway.networking.k8s.io/v1",
    plural: "grpcroutes",
};
pub(crate) const HTTP_ROUTES: Kind = Kind {
    api: "gateway.networking.k8s.io/v1",
    plural: "httproutes",
};
pub(crate) const DESTINATION_RULES: Kind = Kind {
    api: "networking.istio.io/v1",
    plural: "destinationrules",
};

impl Kind {
    /// The name of one object, as kubectl takes it.
    pub(crate) fn singular(self) -> &'static str {
        self.plural.trim_end_matches('s')
    }
}

/// The state of a migration in one cluster.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Position {
    /// The calls that the pods get.
    pub(crate) share: Share,
    /// The count of changes; the same everywhere, or a step was cut in half.
    pub(crate) epoch: u64,
    /// The moment of the change (RFC 3339).
    pub(crate) since: String,
    /// Who changed it: user, host and process.
    pub(crate) by: String,
}

impl Position {
    /// The position that a route carries.
    pub(crate) fn of(route: &Value) -> Result<Self> {
        let annotation = |key: &str| {
            let text = route["metadata"]["annotations"][key].as_str();
            text.with_context(|| format!("annotation {key} is missing: `undo` and `apply` begin anew"))
        };
        let share: Share = annotation(SHARE)?.parse().map_err(anyhow::Error::msg)?;
        let epoch = annotation(EPOCH)?;
        Ok(Self {
            share,
            epoch: epoch
                .parse()
                .with_context(|| format!("annotation {EPOCH} is {epoch:?}"))?,
            since: one_line(annotation(SINCE)?),
            by: one_line(annotation(BY)?),
        })
    }

    /// The name that a VirtualService's route has in Envoy while this position is in force.
    pub(crate) fn route_name(&self) -> String {
        format!("{MANAGER}-{}", self.epoch)
    }
}

/// A text that anybody may have written, with nothing that begins another line where it is told.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The kind of the object that splits the calls.
pub(crate) fn route_kind(migration: &Migration) -> Kind {
    match migration.gateway_route.as_ref().map(|route| route.kind) {
        None => VIRTUAL_SERVICES,
        Some(GatewayRouteKind::Grpc) => GRPC_ROUTES,
        Some(GatewayRouteKind::Http) => HTTP_ROUTES,
    }
}

/// The object that splits the calls.
pub(crate) fn route(migration: &Migration, position: &Position) -> Value {
    let mut object = match &migration.gateway_route {
        None => virtual_service(migration, position),
        Some(route) => gateway::route(migration, route, position.share),
    };
    object["metadata"]["annotations"] = json!({
        SHARE: position.share.of_pods().to_string(),
        EPOCH: position.epoch.to_string(),
        SINCE: position.since,
        BY: position.by,
    });
    object
}

fn virtual_service(migration: &Migration, position: &Position) -> Value {
    let host = migration.host();
    let [vm, pods] = match migration.form() {
        Form::Hosts => [json!({ "host": host }), json!({ "host": migration.pods_host() })],
        Form::Subsets => [VM_SUBSET, PODS_SUBSET].map(|subset| json!({ "host": host, "subset": subset })),
    };
    let mut object = named(migration, VIRTUAL_SERVICES, "VirtualService");
    let weights = json!([
        { "destination": vm, "weight": position.share.of_vm() },
        { "destination": pods, "weight": position.share.of_pods() },
    ]);
    object["spec"] = match migration.protocol {
        Protocol::Http => json!({ "hosts": [host], "http": [{ "name": position.route_name(), "route": weights }] }),
        // Istio's TCPRoute has no name.
        Protocol::Tcp => json!({ "hosts": [host], "tcp": [{ "route": weights }] }),
    };
    object
}

/// The keys below `spec`: the rules, and below the one rule the sides.
fn keys(migration: &Migration) -> [&'static str; 2] {
    match (&migration.gateway_route, migration.protocol) {
        (Some(_), _) => ["rules", "backendRefs"],
        (None, Protocol::Http) => ["http", "route"],
        (None, Protocol::Tcp) => ["tcp", "route"],
    }
}

/// The prefix of the statistics that istiod gives a split of connections in Envoy, which tells it from the mesh's own way.
pub(crate) fn stat_prefix(migration: &Migration) -> String {
    format!("{}.{}", migration.object_name(), migration.namespace)
}

/// The DestinationRule without which there are no subsets, where VM and pods are some.
pub(crate) fn destination_rule(migration: &Migration) -> Option<Value> {
    (migration.form() == Form::Subsets).then(|| {
        let subset = |name, labels: &std::collections::BTreeMap<String, crate::migration::Text>| {
            let labels: serde_json::Map<String, Value> = labels
                .iter()
                .map(|(key, text)| (key.clone(), text.as_str().into()))
                .collect();
            json!({ "name": name, "labels": labels })
        };
        let mut object = named(migration, DESTINATION_RULES, "DestinationRule");
        object["spec"] = json!({
            "host": migration.host(),
            "subsets": [subset(VM_SUBSET, &migration.vm.labels), subset(PODS_SUBSET, &migration.pods.labels)],
        });
        object
    })
}

/// The ends of the names of Envoy's clusters (`outbound|PORT|SUBSET|HOST`) of VM and pods.
pub(crate) fn clusters(migration: &Migration) -> [String; 2] {
    match migration.form() {
        Form::Hosts => [migration.host(), migration.pods_host()].map(|host| format!("||{host}")),
        Form::Subsets => subset_clusters(migration),
    }
}

/// The subsets' part of the names of Envoy's clusters (`outbound|PORT|SUBSET|HOST`).
pub(crate) fn subset_clusters(migration: &Migration) -> [String; 2] {
    [VM_SUBSET, PODS_SUBSET].map(|subset| format!("|{subset}|{}", migration.host()))
}

/// The share of the pods that the rules of a route say, whatever its annotations do; absent: anything in it is not this
/// program's, but the name of the rule, which sends no call elsewhere.
pub(crate) fn share_in_force(migration: &Migration, found: &Value) -> Option<Share> {
    let [rules, sides] = keys(migration);
    let weight = &found["spec"][rules][0][sides][1]["weight"];
    let share = Share::try_from(u8::try_from(weight.as_u64().unwrap_or(0)).ok()?).ok()?;
    let at = Position::of(found).ok()?;
    let wanted = route(migration, &Position { share, ..at });
    let split = |object: &Value| split(&object["spec"], rules, sides);
    (split(found) == split(&wanted)).then_some(share)
}

/// A spec without the name of its first rule, and with each weight of it.
fn split(spec: &Value, rules: &str, sides: &str) -> Value {
    let mut spec = spec.clone();
    if let Some(Value::Object(first)) = spec.pointer_mut(&format!("/{rules}/0")) {
        first.remove("name");
        for side in first.get_mut(sides).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Value::Object(side) = side {
                side.entry("weight").or_insert_with(|| 0.into());
            }
        }
    }
    spec
}

/// The managers other than this program of an object's routes, the last one first. To write other routes without
/// force is a conflict with each.
pub(crate) fn foreign_managers(route: &Value) -> Vec<String> {
    let fields = route["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut foreign: Vec<(&str, &str)> = fields
        .filter(|entry| {
            let spec = &entry["fieldsV1"]["f:spec"];
            entry["manager"] != MANAGER && ["f:http", "f:tcp", "f:rules"].iter().any(|key| !spec[key].is_null())
        })
        .filter_map(|entry| Some((entry["time"].as_str().unwrap_or_default(), entry["manager"].as_str()?)))
        .collect();
    foreign.sort_unstable_by(|a, b| b.cmp(a));
    foreign.into_iter().map(|(_, manager)| manager.to_owned()).collect()
}

/// The part of an object that people write: no status and nothing that the API server adds.
pub(crate) fn written(object: &Value) -> Value {
    let mut part = json!({
        "apiVersion": object["apiVersion"], "kind": object["kind"],
        "metadata": { "name": object["metadata"]["name"], "namespace": object["metadata"]["namespace"] },
        "spec": object["spec"],
    });
    for key in ["labels", "annotations"] {
        if !object["metadata"][key].is_null() {
            part["metadata"][key] = object["metadata"][key].clone();
        }
    }
    part
}

fn named(migration: &Migration, of: Kind, kind: &str) -> Value {
    json!({
        "apiVersion": of.api,
        "kind": kind,
        "metadata": {
            "name": migration.object_name(),
            "namespace": migration.namespace.as_str(),
            "labels": { "app.kubernetes.io/managed-by": MANAGER },
        },
    })
}

#[cfg(test)]
pub(crate) mod tests;
