//! The VMs as Kubernetes and Istio know them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use super::{Group, Mesh, probe};

pub(super) const ISTIO: &str = "networking.istio.io/v1";

/// The namespace, with the label that makes it a part of the mesh.
pub(super) fn namespace(group: &Group, mesh: &Mesh) -> Value {
    let label = match &mesh.revision {
        Some(revision) => json!({ "istio.io/rev": revision.as_str() }),
        None => json!({ "istio-injection": "enabled" }),
    };
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": { "name": group.namespace.as_str(), "labels": label },
    })
}

pub(super) fn service_account(group: &Group) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": { "name": group.service_account.as_str(), "namespace": group.namespace.as_str() },
    })
}

pub(super) fn workload_group(group: &Group) -> Value {
    let mut template = json!({ "ports": targets(group), "serviceAccount": group.service_account.as_str() });
    if let Some(network) = &group.network {
        template["network"] = network.as_str().into();
    }
    json!({
        "apiVersion": ISTIO,
        "kind": "WorkloadGroup",
        "metadata": { "name": group.name.as_str(), "namespace": group.namespace.as_str() },
        "spec": {
            "metadata": { "labels": labels(group) },
            "probe": probe::object(&group.probe),
            "template": template,
        },
    })
}

/// `selects`: its endpoints are the workloads with the label `app`, pods too. Else they are those of
/// [`service_entry`]: a Service that selects nothing gives the name and the address by which pods call.
pub(super) fn service(group: &Group, selects: bool) -> Value {
    let ports = group.ports.iter().map(
        |port| json!({ "name": port.name.as_str(), "port": port.port, "protocol": "TCP", "targetPort": port.target }),
    );
    let mut spec = json!({ "ports": ports.collect::<Vec<Value>>() });
    if selects {
        spec["selector"] = json!({ "app": group.service.as_str() });
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": group.service.as_str(), "namespace": group.namespace.as_str(),
            "labels": { "app": group.service.as_str() } },
        "spec": spec,
    })
}

/// The VMs by address, under the Service's name. A service account is what makes istiod expect TLS of them.
pub(super) fn service_entry(group: &Group, addresses: &[IpAddr]) -> Value {
    let endpoint = |address: &IpAddr| {
        let mut endpoint = json!({
            "address": address,
            "labels": labels(group),
            "ports": targets(group),
            "serviceAccount": group.service_account.as_str(),
        });
        if let Some(network) = &group.network {
            endpoint["network"] = network.as_str().into();
        }
        endpoint
    };
    entry(group, addresses.iter().map(endpoint).collect())
}

/// The VMs as whatever answers at a gateway. It is in no network of the mesh, or istiod would look for a way there.
pub(super) fn service_entry_through(group: &Group, address: IpAddr, port: u16) -> Value {
    let ports: Map<String, Value> = group
        .ports
        .iter()
        .map(|of| (of.name.to_string(), port.into()))
        .collect();
    let endpoint = json!({
        "address": address,
        "ports": ports,
        "serviceAccount": group.service_account.as_str(),
    });
    entry(group, vec![endpoint])
}

/// The name by which callers know the VMs.
pub(super) fn host(group: &Group) -> String {
    format!("{}.{}.svc.cluster.local", group.service, group.namespace)
}

fn entry(group: &Group, endpoints: Vec<Value>) -> Value {
    let ports = group.ports.iter().map(
        |port| json!({ "name": port.name.as_str(), "number": port.port, "protocol": protocol(port.name.as_str()) }),
    );
    json!({
        "apiVersion": ISTIO,
        "kind": "ServiceEntry",
        "metadata": { "name": group.name.as_str(), "namespace": group.namespace.as_str() },
        "spec": {
            "endpoints": endpoints,
            "hosts": [host(group)],
            "location": "MESH_INTERNAL",
            "ports": ports.collect::<Vec<Value>>(),
            "resolution": "STATIC",
        },
    })
}

fn labels(group: &Group) -> BTreeMap<&str, &str> {
    let more = group.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    more.chain([("app", group.service.as_str())]).collect()
}

/// Ports on which the VM listens, by the name of the port.
fn targets(group: &Group) -> Map<String, Value> {
    let target = |port: &super::Port| (port.name.to_string(), port.target.into());
    group.ports.iter().map(target).collect()
}

/// The protocol that Istio takes from a port's name (istio.io "Protocol Selection"), which a ServiceEntry has to say.
fn protocol(name: &str) -> &'static str {
    const KNOWN: [(&str, &str); 7] = [
        ("grpc", "GRPC"),
        ("http", "HTTP"),
        ("http2", "HTTP2"),
        ("https", "HTTPS"),
        ("tls", "TLS"),
        ("mongo", "MONGO"),
        ("tcp", "TCP"),
    ];
    let first = name.split('-').next().unwrap_or(name);
    let known = KNOWN.iter().find(|(prefix, _)| *prefix == first);
    known.map_or("TCP", |(_, protocol)| protocol)
}
