//! The static listeners: 15090 (Envoy's metrics), 15021 (readiness, through Envoy to the agent), the container's, and
//! the admin interface's port where it has one.

use std::net::IpAddr;

use serde_json::{Value, json};

use super::addresses::{LocalAddresses, tcp};
use super::options::BootstrapOptions;
use super::{clusters, container};
use crate::config::ports;
use crate::facts::Membership;

/// The content types that are compressed for a scrape that asks for it.
const METRIC_TYPES: [&str; 4] = [
    "text/plain",
    "application/vnd.google.protobuf",
    "application/openmetrics-text",
    "application/openmetrics-protobuf",
];

/// The paths of the admin interface that its port shows. A path that changes something takes a POST.
const READ_ONLY_PATHS: [&str; 10] = [
    "/ready",
    "/stats",
    "/clusters",
    "/listeners",
    "/server_info",
    "/certs",
    "/memory",
    "/runtime",
    "/init_dump",
    "/config_dump",
];

pub(super) fn listeners(membership: &Membership, local: LocalAddresses, options: &BootstrapOptions) -> Value {
    let config = &membership.proxy_config;
    let local_metrics = config
        .metadata()
        .get("METRICS_LOCALHOST_ACCESS_ONLY")
        .map(String::as_str)
        == Some("true");
    let wildcard = (local.wildcard, local.other.map(|(_, wildcard)| wildcard));
    let localhost = (local.localhost, local.other.map(|(localhost, _)| localhost));
    let mut filters = Vec::new();
    if config.0.get("statsCompression").and_then(Value::as_bool) != Some(false) {
        filters.extend(["brotli", "zstd", "gzip"].map(compressor));
    }
    filters.push(router());
    let metrics = Listener {
        local_reply: None,
        port: ports::ENVOY_METRICS,
        addresses: if local_metrics { localhost } else { wildcard },
        stat_prefix: "stats",
        path: "/stats/prometheus",
        cluster: clusters::METRICS,
        filters,
    };
    let readiness = Listener {
        local_reply: Some(without_an_agent()),
        port: ports::READINESS,
        addresses: wildcard,
        stat_prefix: "agent",
        path: "/healthz/ready",
        cluster: clusters::AGENT,
        filters: vec![router()],
    };
    let own = [metrics.to_json(wildcard.0), readiness.to_json(wildcard.0)];
    own.into_iter()
        .chain(container::listener(membership, &options.published))
        .chain(options.admin_port.map(|port| admin(local.localhost, port)))
        .collect()
}

/// The listener of the admin port: for whoever is on this machine, and for nothing that changes Envoy. The admin
/// interface itself can't have the port too: while an Envoy takes over from another, both have an interface and this
/// listener.
fn admin(localhost: IpAddr, port: u16) -> Value {
    let get = json!([{ "name": ":method", "string_match": { "exact": "GET" } }]);
    let shown = |path: &str| {
        json!({
            "match": { "path_separated_prefix": path, "headers": get },
            "route": { "cluster": clusters::METRICS },
        })
    };
    let refused = json!({
        "match": { "prefix": "/" },
        "direct_response": { "status": 403, "body": { "inline_string":
            "only what shows Envoy's state is here: use the unix socket, as root\n" } },
    });
    let routes = READ_ONLY_PATHS.iter().map(|path| shown(path)).chain([refused]);
    json!({
        "name": format!("admin_{port}"),
        "address": tcp(localhost, port),
        "ignore_global_conn_limit": true,
        "bypass_overload_manager": true,
        "filter_chains": [{ "filters": [connection_manager("admin", &routes.collect(), &json!([router()]))] }],
    })
}

fn connection_manager(stat_prefix: &str, routes: &Value, filters: &Value) -> Value {
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "codec_type": "AUTO",
            "stat_prefix": stat_prefix,
            "route_config": { "virtual_hosts": [{ "name": "backend", "domains": ["*"], "routes": routes }] },
            "http_filters": filters,
        },
    })
}

/// A listener that forwards one path to one cluster.
struct Listener {
    port: u16,
    /// The address to listen on, and that of the other family in dual-stack.
    addresses: (IpAddr, Option<IpAddr>),
    stat_prefix: &'static str,
    path: &'static str,
    cluster: &'static str,
    filters: Vec<Value>,
    local_reply: Option<Value>,
}

/// An Envoy whose agent listens no more (response flag UF) serves what it has: whoever probes this VM would take it out of
/// use for the moment in which one agent follows another. It is started, and stopped, by an agent that does listen.
fn without_an_agent() -> Value {
    json!({ "mappers": [{
        "filter": { "response_flag_filter": { "flags": ["UF"] } },
        "status_code": 200,
        "body": { "inline_string": "ready, without an agent" },
    }] })
}

impl Listener {
    fn to_json(&self, named_after: IpAddr) -> Value {
        let routes = json!([{ "match": { "prefix": self.path }, "route": { "cluster": self.cluster } }]);
        let mut listener = json!({
            "name": format!("{named_after}_{}", self.port),
            "address": tcp(self.addresses.0, self.port),
            "ignore_global_conn_limit": true,
            "bypass_overload_manager": true,
            "filter_chains": [{ "filters": [connection_manager(self.stat_prefix, &routes, &self.filters.clone().into())] }],
        });
        if let Some(local_reply) = &self.local_reply {
            listener["filter_chains"][0]["filters"][0]["typed_config"]["local_reply_config"] = local_reply.clone();
        }
        if let Some(other) = self.addresses.1 {
            listener["additional_addresses"] = json!([{ "address": tcp(other, self.port) }]);
        }
        listener
    }
}

fn router() -> Value {
    json!({
        "name": "envoy.filters.http.router",
        "typed_config": { "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router" },
    })
}

fn compressor(kind: &str) -> Value {
    let mut message = kind.to_owned();
    message[..1].make_ascii_uppercase();
    json!({
        "name": format!("envoy.filters.http.compressor.{kind}"),
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.compressor.v3.Compressor",
            "compressor_library": {
                "name": format!("stats_{kind}"),
                "typed_config": {
                    "@type": format!("type.googleapis.com/envoy.extensions.compression.{kind}.compressor.v3.{message}"),
                },
            },
            "response_direction_config": { "common_config": { "content_type": METRIC_TYPES } },
        },
    })
}
