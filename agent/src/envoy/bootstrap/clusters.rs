//! The static clusters: the agent's sockets, and what the two static listeners forward to.

use serde_json::{Value, json};

use super::addresses::{LocalAddresses, pipe, tcp};
use super::container;
use super::options::BootstrapOptions;
use crate::config::ports;

/// The cluster that istiod's listeners name for secrets (istio/pkg/model/authentication.go).
const SDS: &str = "sds-grpc";
/// The cluster by which Envoy reaches the agent's ADS.
pub(super) const XDS: &str = "xds-grpc";
/// The cluster of Envoy's own admin interface, named as Istio names it.
pub(super) const METRICS: &str = "prometheus_stats";
/// The cluster of the agent's status server.
pub(super) const AGENT: &str = "agent";

pub(super) fn clusters(local: LocalAddresses, options: &BootstrapOptions) -> Value {
    let own = [
        cluster(METRICS, "0.250s", &pipe(&options.admin_socket)),
        agent(local),
        grpc(cluster(SDS, "1s", &pipe(&options.sds_socket))),
        xds(options),
    ];
    let container = container::clusters(&options.published);
    own.into_iter().chain(container).collect()
}

/// To the agent all that Envoy forwards is one client's, which has 16 places there (`status::server`): a flood of 15021 is
/// to wait here, and who asks in good faith with it, instead of being turned away.
fn agent(local: LocalAddresses) -> Value {
    const CONNECTIONS: u32 = 8;
    // Whatever the mesh's statusPort: this is where the agent listens.
    let mut cluster = cluster(AGENT, "0.250s", &tcp(local.localhost, ports::STATUS));
    cluster["circuit_breakers"] = json!({ "thresholds": [{ "max_connections": CONNECTIONS }] });
    cluster
}

fn xds(options: &BootstrapOptions) -> Value {
    let threshold = |priority: &str| {
        json!({
            "priority": priority,
            "max_connections": 100_000,
            "max_pending_requests": 100_000,
            "max_requests": 100_000,
        })
    };
    let mut cluster = grpc(cluster(XDS, "1s", &pipe(&options.xds_socket)));
    cluster["circuit_breakers"] = json!({ "thresholds": [threshold("DEFAULT"), threshold("HIGH")] });
    cluster["upstream_connection_options"] = json!({ "tcp_keepalive": { "keepalive_time": 300 } });
    cluster["max_requests_per_connection"] = 1.into();
    cluster
}

/// Renders a cluster of one endpoint. The `;` ends the cluster's name in its stats, where the tag's regex looks for it.
fn cluster(name: &str, connect_timeout: &str, address: &Value) -> Value {
    json!({
        "name": name,
        "alt_stat_name": format!("{name};"),
        "type": "STATIC",
        "connect_timeout": connect_timeout,
        "lb_policy": "ROUND_ROBIN",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{ "lb_endpoints": [{ "endpoint": { "address": address } }] }],
        },
    })
}

/// Has a cluster spoken to in HTTP/2.
fn grpc(mut cluster: Value) -> Value {
    let kind = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    cluster["typed_extension_protocol_options"] = json!({ kind: {
        "@type": format!("type.googleapis.com/{kind}"),
        "explicit_http_config": { "http2_protocol_options": {} },
    } });
    cluster
}
