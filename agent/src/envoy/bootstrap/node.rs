//! The node that Envoy introduces itself as: id, cluster, locality, metadata, in istiod's wire encodings
//! (istio/pkg/model/proxy.go): lists joined by commas, lists of ports as JSON in a string, booleans as strings.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::config::ports;
use crate::facts::{HostPort, Membership};

/// The Istio release whose proxy istiod takes this one for, and gates features by; ISTIO_META_ISTIO_VERSION overrides
/// it. 1.30 is the newest release that istiod's gates name, and all that they gate there is in upstream Envoy 1.38.
pub const ISTIO_VERSION: &str = "1.30.0";
/// ProxyConfig's `serviceCluster` when nobody chose one.
const DEFAULT_SERVICE_CLUSTER: &str = "istio-proxy";

pub(super) fn node(membership: &Membership) -> Value {
    let labels = labels(membership);
    let id = &membership.spiffe_id;
    json!({
        "id": format!(
            "sidecar~{}~{}.{}~{}.svc.{}",
            membership.instance_ips.first().map(ToString::to_string).unwrap_or_default(),
            membership.node_name,
            id.namespace,
            id.namespace,
            membership.cluster_domain,
        ),
        "cluster": cluster(membership, &labels),
        "locality": locality(&labels),
        "metadata": metadata(membership, &labels),
    })
}

/// True when Envoy asks istiod about workloads, which follows HBONE unless it is configured
/// (istio/pkg/bootstrap/config.go).
pub(super) fn metadata_discovery(membership: &Membership) -> bool {
    let metadata = membership.node_metadata();
    let key = metadata
        .get("METADATA_DISCOVERY")
        .or_else(|| metadata.get("ENABLE_HBONE"));
    key.and_then(Value::as_str) == Some("true")
}

fn metadata(membership: &Membership, labels: &BTreeMap<String, String>) -> Map<String, Value> {
    let mut metadata = membership.node_metadata();
    if !metadata.contains_key("ISTIO_VERSION") {
        metadata.insert("ISTIO_VERSION".to_owned(), ISTIO_VERSION.into());
    }
    let ips: Vec<String> = membership.instance_ips.iter().map(ToString::to_string).collect();
    let istiod = HostPort::host_of(&membership.discovery_address);
    let typed = json!({
        "CLUSTER_ID": membership.cluster_id,
        "ENVOY_PROMETHEUS_PORT": ports::ENVOY_METRICS,
        "ENVOY_SKIP_DEPRECATED_LOGS": "true",
        "ENVOY_STATUS_PORT": ports::READINESS,
        "INSTANCE_IPS": ips.join(","),
        "METADATA_DISCOVERY": metadata_discovery(membership).to_string(),
        "NAME": membership.node_name,
        "NAMESPACE": membership.spiffe_id.namespace,
        "PILOT_SAN": [istiod],
        "PROXY_CONFIG": membership.proxy_config.0,
        "SERVICE_ACCOUNT": membership.spiffe_id.service_account,
    });
    metadata.extend(typed.as_object().cloned().unwrap_or_default());
    if !labels.is_empty() {
        metadata.insert("LABELS".to_owned(), json!(labels));
        metadata.insert("STATIC_LABELS".to_owned(), json!(labels));
    }
    metadata
}

fn labels(membership: &Membership) -> BTreeMap<String, String> {
    let text = membership.env.get("ISTIO_METAJSON_LABELS").map_or("", String::as_str);
    serde_json::from_str(text).unwrap_or_default()
}

/// The node's cluster: an explicit name, else the application's, else the workload's.
fn cluster(membership: &Membership, labels: &BTreeMap<String, String>) -> String {
    // ISTIO_SERVICE is what istio-start.sh puts in as serviceCluster.
    let explicit = [
        membership.proxy_config.str("serviceCluster"),
        membership.env.get("ISTIO_SERVICE").map(String::as_str),
    ];
    let explicit = explicit
        .into_iter()
        .flatten()
        .find(|name| !name.is_empty() && *name != DEFAULT_SERVICE_CLUSTER);
    if let Some(name) = explicit {
        return name.to_owned();
    }
    let application = ["app", "app.kubernetes.io/name", "service.istio.io/canonical-name"];
    let name = application
        .iter()
        .find_map(|key| labels.get(*key))
        .or_else(|| membership.env.get("ISTIO_META_WORKLOAD_NAME"))
        .filter(|name| !name.is_empty())
        .map_or(DEFAULT_SERVICE_CLUSTER, String::as_str);
    format!("{name}.{}", membership.spiffe_id.namespace)
}

/// The locality of its label, `region/zone/subzone`; labels can't hold a slash, so the older one may use dots.
fn locality(labels: &BTreeMap<String, String>) -> Map<String, Value> {
    let label = labels
        .get("topology.istio.io/locality")
        .or_else(|| labels.get("istio-locality"));
    let label = label.map_or("", String::as_str);
    let separator = if label.contains('/') { '/' } else { '.' };
    ["region", "zone", "sub_zone"]
        .into_iter()
        .zip(label.splitn(3, separator))
        .filter(|(_, part)| !part.is_empty())
        .map(|(key, part)| (key.to_owned(), part.into()))
        .collect()
}
