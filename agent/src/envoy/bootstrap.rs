//! Envoy's bootstrap: what pilot-agent renders from envoy_bootstrap.json for the same VM. Pure.
//!
//! The golden test lists every place where it departs from Istio's on purpose.

mod addresses;
mod clusters;
mod container;
mod listeners;
mod node;
mod options;
mod stats;

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

pub(super) use addresses::LocalAddresses;
pub(super) use container::cluster_name;
pub use node::ISTIO_VERSION;
pub use options::{BootstrapOptions, PublishedPort};

use crate::facts::{Membership, ProxyConfig};

/// The format of Envoy's own log, which is Istio's and which `process::log_pipes` parses.
const LOG_FORMAT: &str = "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t";
/// The proxyMetadata key of the connection limit (istio/pkg/bootstrap/config.go).
const MAX_CONNECTIONS_KEY: &str = "ISTIO_META_GLOBAL_DOWNSTREAM_MAX_CONNECTIONS";

/// Renders the bootstrap.
pub fn bootstrap(membership: &Membership, options: &BootstrapOptions) -> Value {
    let local = LocalAddresses::of(membership);
    json!({
        "application_log_config": { "log_format": { "text_format": LOG_FORMAT } },
        "node": node::node(membership),
        "layered_runtime": { "layers": [
            { "name": "global config", "static_layer": runtime(&membership.proxy_config) },
            { "name": "admin", "admin_layer": {} },
        ] },
        "bootstrap_extensions": extensions(membership),
        "stats_config": stats::config(membership),
        "admin": {
            "access_log": [{
                "name": "envoy.access_loggers.file",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                    "path": "/dev/null",
                },
            }],
            "profile_path": "/var/lib/istio/data/envoy.prof",
            "address": { "pipe": { "path": options.admin_socket, "mode": 0o600 } },
        },
        "dynamic_resources": dynamic_resources(),
        "static_resources": {
            "clusters": clusters::clusters(local, options),
            "listeners": listeners::listeners(membership, local, options),
        },
        "overload_manager": { "resource_monitors": [{
            "name": "envoy.resource_monitors.global_downstream_max_connections",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
                "max_active_downstream_connections": max_connections(&membership.proxy_config),
            },
        }] },
        "deferred_stat_options": { "enable_deferred_creation_stats": true },
    })
}

fn dynamic_resources() -> Value {
    let over_ads = json!({ "ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3" });
    json!({
        "lds_config": over_ads,
        "cds_config": over_ads,
        "ads_config": {
            "api_type": "DELTA_GRPC",
            "set_node_on_first_message_only": true,
            "transport_api_version": "V3",
            "grpc_services": [{ "envoy_grpc": {
                "cluster_name": clusters::XDS,
                // The agent is on this machine, and istiod forgets a VM whose stream is away for 10 s: not Envoy's 30
                // s.
                "retry_policy": { "retry_back_off": { "base_interval": "0.2s", "max_interval": "1s" } },
            } }],
        },
    })
}

fn extensions(membership: &Membership) -> Value {
    let typed = |url: &str, value: Value| json!({ "@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": url, "value": value });
    let mut extensions = Vec::new();
    if node::metadata_discovery(membership) {
        extensions.push(json!({
            "name": "metadata_discovery",
            "typed_config": typed(
                "type.googleapis.com/istio.workload.BootstrapExtension",
                json!({ "config_source": { "ads": {} } }),
            ),
        }));
    }
    extensions.push(json!({
        "name": "envoy.bootstrap.internal_listener",
        "typed_config": typed(
            "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
            json!({ "buffer_size_kb": 64 }),
        ),
    }));
    extensions.into()
}

/// Istio's runtime flags, overridden by ProxyConfig's `runtimeValues`, of which an empty value takes a flag out.
fn runtime(config: &ProxyConfig) -> Map<String, Value> {
    let defaults = json!({
        "re2.max_program_size.error_level": "32768",
        "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": true,
        "envoy.reloadable_features.http_reject_path_with_fragment": false,
        "envoy.reloadable_features.fixed_heap_use_allocated": true,
        "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": false,
    });
    let Value::Object(mut flags) = defaults else {
        return Map::new();
    };
    for (flag, value) in runtime_values(config) {
        match value.as_str() {
            "" => drop(flags.remove(&flag)),
            "true" => drop(flags.insert(flag, true.into())),
            "false" => drop(flags.insert(flag, false.into())),
            _ => drop(flags.insert(flag, value.into())),
        }
    }
    flags
}

fn runtime_values(config: &ProxyConfig) -> BTreeMap<String, String> {
    let values = config.0.get("runtimeValues").and_then(Value::as_object);
    let text = |(flag, value): (&String, &Value)| Some((flag.clone(), value.as_str()?.to_owned()));
    values.into_iter().flatten().filter_map(text).collect()
}

/// The connection limit: of `connectionSettings`, else of proxyMetadata, else of the runtime value of old, else none.
fn max_connections(config: &ProxyConfig) -> i64 {
    let setting = config.0.get("connectionSettings");
    let limit = setting
        .and_then(|setting| setting.get("globalDownstreamConnectionLimit")?.as_i64())
        .filter(|limit| *limit > 0);
    let number = |text: Option<&String>| text?.parse().ok();
    limit
        .or_else(|| number(config.metadata().get(MAX_CONNECTIONS_KEY)))
        .or_else(|| number(runtime_values(config).get("overload.global_downstream_max_connections")))
        .unwrap_or_else(|| i32::MAX.into())
}

#[cfg(test)]
pub(super) mod tests;
