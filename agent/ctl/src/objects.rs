//! The objects of a migration, from the file and a position to JSON and back. Pure.
//!
//! The position stands in annotations of the VirtualService of every cluster: no machine of an operator keeps any of it.

use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Value, json};

use crate::migration::{Form, Migration, Protocol, Share};

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
pub(crate) const DESTINATION_RULES: Kind = Kind {
    api: "networking.istio.io/v1",
    plural: "destinationrules",
};

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
    /// The position that a VirtualService carries.
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
            since: annotation(SINCE)?.to_owned(),
            by: annotation(BY)?.to_owned(),
        })
    }

    /// The name that the route has in Envoy while this position is in force.
    pub(crate) fn route_name(&self) -> String {
        format!("{MANAGER}-{}", self.epoch)
    }
}

/// The VirtualService that splits the calls.
pub(crate) fn virtual_service(migration: &Migration, position: &Position) -> Value {
    let host = migration.host();
    let [vm, pods] = match migration.form() {
        Form::Hosts => [json!({ "host": host }), json!({ "host": migration.pods_host() })],
        Form::Subsets => [VM_SUBSET, PODS_SUBSET].map(|subset| json!({ "host": host, "subset": subset })),
    };
    let mut object = named(migration, "VirtualService");
    object["metadata"]["annotations"] = json!({
        SHARE: position.share.of_pods().to_string(),
        EPOCH: position.epoch.to_string(),
        SINCE: position.since,
        BY: position.by,
    });
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

/// The key of a VirtualService's routes.
fn routes_of(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Http => "http",
        Protocol::Tcp => "tcp",
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
        let mut object = named(migration, "DestinationRule");
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

/// The share of the pods that the routes of a VirtualService say, whatever its annotations do.
pub(crate) fn share_in_force(migration: &Migration, route: &Value) -> Option<Share> {
    let key = routes_of(migration.protocol);
    let routes = route["spec"][key].as_array()?;
    let wanted = virtual_service(migration, &Position::of(route).ok()?);
    let [only] = routes.as_slice() else { return None };
    if route["spec"]["hosts"] != wanted["spec"]["hosts"] {
        return None;
    }
    let with_weights = |weights: &Value| {
        let weight = weights["weight"].as_u64().unwrap_or(0);
        (weights["destination"].clone(), weight)
    };
    let expected = wanted["spec"][key][0]["route"].as_array()?;
    let actual: Vec<_> = only["route"].as_array()?.iter().map(with_weights).collect();
    let same_sides = actual.len() == expected.len()
        && expected
            .iter()
            .zip(&actual)
            .all(|(side, (destination, _))| side["destination"] == *destination);
    let [(_, vm), (_, pods)] = actual.as_slice() else {
        return None;
    };
    let pods = u8::try_from(*pods).ok().filter(|_| same_sides && vm + pods == 100)?;
    Share::try_from(pods).ok()
}

/// The managers other than this program of a VirtualService's routes, the last one first. To write other routes without
/// force is a conflict with each.
pub(crate) fn foreign_managers(route: &Value) -> Vec<String> {
    let fields = route["metadata"]["managedFields"].as_array().into_iter().flatten();
    let mut foreign: Vec<(&str, &str)> = fields
        .filter(|entry| {
            let spec = &entry["fieldsV1"]["f:spec"];
            entry["manager"] != MANAGER && ["f:http", "f:tcp"].iter().any(|key| !spec[key].is_null())
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

fn named(migration: &Migration, kind: &str) -> Value {
    json!({
        "apiVersion": VIRTUAL_SERVICES.api,
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
