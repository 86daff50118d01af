//! Envoy's own account of itself (`/config_dump`, `/clusters`), for people and for `explain`. By the JSON names of Envoy's
//! API; fields and types that are not known here are passed over, and so is a resource that is not understood. Pure.

mod address;
mod cluster;
mod cluster_status;
mod endpoint;
mod listener;
mod rbac;
mod route;
mod secret;
mod string_match;
mod transport_socket;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

pub use address::Address;
pub use cluster::Cluster;
pub use cluster_status::{ClusterStatus, ClusterStatuses, HostStatus};
pub use endpoint::{Assignment, LbEndpoint};
pub use listener::{Filter, FilterChain, FilterChainMatch, Listener};
pub use rbac::{Condition, Policy, Rbac};
pub use route::{Action, Route, RouteConfiguration, RouteMatch, VirtualHost, WeightedCluster};
pub use secret::{Certificate, Secret};
pub use string_match::StringMatch;
pub use transport_socket::TransportSocket;

use crate::config::{NOT_SHOWN, hide_secrets};

/// Members of Envoy's messages whose values are secrets, whatever message has them.
const SECRETS: [&str; 9] = [
    "private_key",
    "private_key_provider",
    "pkcs12",
    "password",
    "session_ticket_keys",
    "generic_secret",
    "token_secret",
    "hmac_secret",
    "inline_code",
];
/// Headers whose values are secrets where a route or a health check adds them.
const SECRET_HEADERS: [&str; 6] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "x-api-key",
    "x-goog-iam-authorization-token",
];

/// The sections of a `/config_dump`, each with its resources as Envoy wrote them, but for what is a secret.
#[derive(Clone, Debug, Default)]
pub struct Dump {
    /// The whole document.
    pub document: Value,
    /// envoy.config.listener.v3.Listener, the active ones.
    pub listeners: Vec<Value>,
    /// envoy.config.route.v3.RouteConfiguration.
    pub routes: Vec<Value>,
    /// envoy.config.cluster.v3.Cluster, the active ones.
    pub clusters: Vec<Value>,
    /// envoy.config.endpoint.v3.ClusterLoadAssignment.
    pub endpoints: Vec<Value>,
    /// envoy.admin.v3.SecretsConfigDump's, each with its name and time.
    pub secrets: Vec<Value>,
    /// Updates that Envoy refused: name of the resource and reason.
    pub refused: Vec<(String, String)>,
}

impl Dump {
    /// Takes a `/config_dump` apart.
    ///
    /// # Errors
    /// When it is not JSON.
    pub fn parse(text: &str) -> serde_json::Result<Self> {
        let mut document: Value = serde_json::from_str(text)?;
        conceal(&mut document);
        let mut dump = Self::default();
        for section in items(&document, "configs") {
            dump.listeners
                .extend(inner(section, "dynamic_listeners", "/active_state/listener"));
            dump.listeners.extend(inner(section, "static_listeners", "/listener"));
            for kind in ["dynamic_route_configs", "static_route_configs"] {
                dump.routes.extend(inner(section, kind, "/route_config"));
            }
            for kind in ["dynamic_active_clusters", "static_clusters"] {
                dump.clusters.extend(inner(section, kind, "/cluster"));
            }
            for kind in ["dynamic_endpoint_configs", "static_endpoint_configs"] {
                dump.endpoints.extend(inner(section, kind, "/endpoint_config"));
            }
            for (kind, state) in [
                ("dynamic_active_secrets", "ACTIVE"),
                ("dynamic_warming_secrets", "WARMING"),
            ] {
                dump.secrets.extend(items(section, kind).iter().map(|secret| {
                    let mut secret = secret.clone();
                    secret["state"] = state.into();
                    secret
                }));
            }
            dump.refused.extend(refused(section));
        }
        dump.document = document;
        Ok(dump)
    }
}

/// The resources that are understood, in their order.
pub fn views<T: DeserializeOwned>(resources: &[Value]) -> Vec<T> {
    resources.iter().filter_map(|it| T::deserialize(it).ok()).collect()
}

fn items<'a>(section: &'a Value, key: &str) -> &'a [Value] {
    section[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

fn inner(section: &Value, key: &str, pointer: &str) -> impl Iterator<Item = Value> {
    items(section, key)
        .iter()
        .filter_map(|item| item.pointer(pointer).cloned())
}

/// Every resource of a section with an `error_state` (envoy.admin.v3.UpdateFailureState).
fn refused(section: &Value) -> Vec<(String, String)> {
    let kinds = section.as_object().into_iter().flat_map(|members| members.values());
    let resources = kinds.filter_map(Value::as_array).flatten();
    resources
        .filter_map(|resource| {
            let details = resource.pointer("/error_state/details")?.as_str()?;
            let name = ["/name", "/error_state/failed_configuration/name"];
            let name = name.iter().find_map(|at| resource.pointer(at)?.as_str());
            Some((name.unwrap_or_default().to_owned(), details.to_owned()))
        })
        .collect()
}

/// Takes out what is, or may be, a secret: of the node's ProxyConfig, of certificates, of headers that are added.
fn conceal(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let of_header = members.get("key").and_then(Value::as_str);
            let is_secret_header =
                of_header.is_some_and(|key| SECRET_HEADERS.contains(&key.to_ascii_lowercase().as_str()));
            for (name, value) in members {
                match (name.as_str(), &mut *value) {
                    ("PROXY_CONFIG", Value::Object(config)) => hide_secrets(config),
                    (name, it) if SECRETS.contains(&name) && !it.is_null() => *value = NOT_SHOWN.into(),
                    ("value" | "raw_value", it @ Value::String(_)) if is_secret_header => *it = NOT_SHOWN.into(),
                    _ => conceal(value),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(conceal),
        _ => {}
    }
}

/// A number that Envoy writes as a number, or, where it has 64 bits, as a string.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    Ok(match Value::deserialize(deserializer)? {
        Value::String(text) => text.parse().unwrap_or_default(),
        other => other.as_u64().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn dump_is_taken_apart_without_secrets() {
        let text = json!({"configs": [
            {"bootstrap": {"node": {"metadata": {"PROXY_CONFIG": {"readinessProbe": {"httpGet": {
                "httpHeaders": [{"name": "Authorization", "value": "hunter2"}]}}}}}}},
            {"dynamic_listeners": [
                {"name": "a", "active_state": {"listener": {"name": "a"}}},
                {"name": "b", "error_state": {"details": "no such filter"}},
            ], "static_listeners": [{"listener": {"name": "c"}}]},
            {"dynamic_route_configs": [{"route_config": {"name": "7070", "request_headers_to_add": [
                {"header": {"key": "Authorization", "value": "hunter2"}}, {"header": {"key": "x-team", "value": "shop"}}]}}]},
            {"dynamic_active_secrets": [{"name": "default", "secret": {"tls_certificate": {
                "private_key": {"inline_bytes": "hunter2"}}}}]},
            {"unknown": 1}
        ]});
        let dump = Dump::parse(&text.to_string()).unwrap();
        let names: Vec<String> = views::<Listener>(&dump.listeners)
            .into_iter()
            .map(|it| it.name)
            .collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!(dump.refused, [("b".to_owned(), "no such filter".to_owned())]);
        assert_eq!(dump.secrets[0]["state"], "ACTIVE");
        let shown = format!("{}{:?}{:?}", dump.document, dump.routes, dump.secrets);
        assert!(!shown.contains("hunter2") && shown.contains("shop"), "{shown}");
        for odd in [
            "null",
            "[]",
            "{\"configs\": 7}",
            "{\"configs\": [7, [], {\"dynamic_listeners\": {}}]}",
        ] {
            assert!(Dump::parse(odd).unwrap().listeners.is_empty(), "{odd}");
        }
        assert!(Dump::parse("{").is_err());
    }
}
