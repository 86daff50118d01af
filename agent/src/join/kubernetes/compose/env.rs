//! The variables of cluster.env, and those of them that `proxyMetadata` repeats.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::super::group_ref::GroupRef;
use super::labels::Labels;
use super::mesh_config::MeshConfig;
use super::traffic::Traffic;
use crate::kube::WorkloadGroup;

type Variables = BTreeMap<String, String>;

/// Ports that are never captured: ssh, Envoy's metrics, readiness (istio/istioctl/pkg/workload).
const EXCLUDED: [u64; 3] = [22, 15090, 15021];
const EXCLUDED_PORTS: &str = "ISTIO_LOCAL_EXCLUDE_PORTS";
pub(super) const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
/// Istio's default of `statusPort`.
const STATUS_PORT: u64 = 15020;

/// The variables that make a proxy a member of the group.
pub(super) fn proxy_metadata(group: &WorkloadGroup, mesh: &MeshConfig, group_ref: &GroupRef) -> Variables {
    let labels = Labels::of(group);
    let name = &group.metadata.name;
    let pairs = [
        ("CANONICAL_SERVICE", labels.service.as_str()),
        ("CANONICAL_REVISION", &labels.revision),
        ("POD_NAMESPACE", &group.metadata.namespace),
        ("SERVICE_ACCOUNT", group.service_account()),
        ("TRUST_DOMAIN", &mesh.trust_domain),
        ("ISTIO_META_CLUSTER_ID", &group_ref.cluster_id),
        ("ISTIO_META_MESH_ID", mesh.proxy.str("meshId").unwrap_or_default()),
        ("ISTIO_META_NETWORK", &group.spec.template.network),
        ("ISTIO_META_WORKLOAD_NAME", name),
    ];
    let mut metadata = owned(pairs);
    metadata.insert("ISTIO_METAJSON_LABELS".to_owned(), json!(labels.all).to_string());
    if !group.spec.template.ports.is_empty() {
        metadata.insert("ISTIO_META_POD_PORTS".to_owned(), pod_ports(group));
    }
    // The configuration of this VM wins over the mesh's, which may set either for all proxies.
    let of_mesh = mesh.proxy.metadata();
    for (key, is_on, on, off) in [
        (DNS_CAPTURE, group_ref.dns_capture, "true", "false"),
        ("ISTIO_META_AUTO_REGISTER_GROUP", group_ref.auto_register, name, ""),
    ] {
        if is_on || of_mesh.contains_key(key) {
            metadata.insert(key.to_owned(), if is_on { on } else { off }.to_owned());
        }
    }
    metadata
}

/// The proxy's metadata, under what the agent itself reads.
pub(super) fn variables(
    group: &WorkloadGroup,
    mesh: &MeshConfig,
    group_ref: &GroupRef,
    traffic: &Traffic,
) -> Variables {
    let (namespace, name) = (&group.metadata.namespace, &group.metadata.name);
    let mut env: Variables = mesh.proxy.metadata();
    env.extend(owned([
        ("ISTIO_NAMESPACE", namespace.as_str()),
        ("ISTIO_SERVICE", &format!("{name}.{namespace}")),
        ("SERVICE_ACCOUNT", group.service_account()),
    ]));
    if !group.spec.template.ports.is_empty() {
        // The group's own ports count before what the mesh says to all.
        env.remove("ISTIO_INBOUND_PORTS");
    }
    env.extend(
        traffic
            .0
            .iter()
            .map(|(key, (value, _))| ((*key).to_owned(), value.clone())),
    );
    let excluded = env.get(EXCLUDED_PORTS).cloned().unwrap_or_default();
    env.insert(EXCLUDED_PORTS.to_owned(), excluded_ports(mesh, &excluded));
    // What nobody has said: istioctl lets nobody say it.
    let mut defaults = owned([
        ("ISTIO_INBOUND_PORTS", inbound_ports(group, &excluded).as_str()),
        ("ISTIO_SERVICE_CIDR", "*"),
    ]);
    defaults.extend(
        group_ref
            .revision_address()
            .map(|address| ("CA_ADDR".to_owned(), address)),
    );
    for (key, value) in defaults {
        env.entry(key).or_insert(value);
    }
    env
}

/// The variables that a shell could set. Others reach the proxy through its ProxyConfig alone.
pub(super) fn settable(mut env: Variables) -> Variables {
    env.retain(|key, _| is_name(key));
    env
}

fn is_name(key: &str) -> bool {
    key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn owned<const N: usize>(pairs: [(&str, &str); N]) -> Variables {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// PodPort's JSON (istio/pkg/model/proxy.go), by name.
fn pod_ports(group: &WorkloadGroup) -> String {
    let port = |(name, port): (&String, &u32)| json!({"name": name, "containerPort": port, "protocol": ""});
    Value::Array(group.spec.template.ports.iter().map(port).collect()).to_string()
}

/// `*` captures all ports.
fn inbound_ports(group: &WorkloadGroup, excluded: &str) -> String {
    let mut ports: Vec<u32> = group.spec.template.ports.values().copied().collect();
    if ports.is_empty() {
        return "*".to_owned();
    }
    let is_excluded = |port: &u32| excluded.split(',').any(|item| item.trim().parse() == Ok(*port));
    ports.retain(|port| !is_excluded(port));
    ports.sort_unstable();
    joined(&ports)
}

/// The mesh's own, and what somebody has excluded.
fn excluded_ports(mesh: &MeshConfig, excluded: &str) -> String {
    let status = mesh
        .proxy
        .0
        .get("statusPort")
        .and_then(Value::as_u64)
        .unwrap_or(STATUS_PORT);
    let mut ports = EXCLUDED.to_vec();
    if !ports.contains(&status) {
        ports.push(status);
    }
    let own: Vec<String> = ports.iter().map(u64::to_string).collect();
    let others = excluded.split(',').map(str::trim).filter(|port| !port.is_empty());
    let others = others
        .filter(|port| !own.iter().any(|own| own == port))
        .map(str::to_owned);
    own.iter().cloned().chain(others).collect::<Vec<_>>().join(",")
}

fn joined<T: ToString>(ports: &[T]) -> String {
    ports.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}
