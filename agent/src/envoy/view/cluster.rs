//! envoy.config.cluster.v3.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::TransportSocket;

/// A cluster.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Cluster {
    /// Name; istiod's is `direction|port|subset|host`.
    pub name: String,
    /// `EDS`, `STATIC`, `ORIGINAL_DST`, …
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// TLS to all of its hosts.
    pub transport_socket: Option<TransportSocket>,
    /// TLS to hosts whose metadata matches; the first match counts.
    pub transport_socket_matches: Vec<TransportSocketMatch>,
    /// Limits.
    pub circuit_breakers: CircuitBreakers,
    /// When a host is ejected.
    pub outlier_detection: Option<Value>,
    /// istiod's notes.
    pub metadata: Value,
    /// Options of the protocol that is spoken to its hosts, by their extension.
    pub typed_extension_protocol_options: Value,
}

impl Cluster {
    /// True where its hosts are spoken to in HTTP/2, as for a port that Istio takes for http2 or grpc.
    pub fn is_http2(&self) -> bool {
        let options = &self.typed_extension_protocol_options["envoy.extensions.upstreams.http.v3.HttpProtocolOptions"];
        options
            .pointer("/explicit_http_config/http2_protocol_options")
            .is_some()
    }
}

/// A transport socket for some hosts.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TransportSocketMatch {
    /// Name; istiod's is `tlsMode-istio` or `tlsMode-disabled`.
    pub name: String,
    /// The metadata that a host must have.
    #[serde(rename = "match")]
    pub matches: Value,
    /// The socket.
    pub transport_socket: TransportSocket,
}

/// envoy.config.cluster.v3.CircuitBreakers.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CircuitBreakers {
    /// Limits, one of each priority.
    pub thresholds: Vec<Thresholds>,
}

/// Limits of one priority.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Thresholds {
    /// `HIGH`; absent: the default.
    pub priority: Option<String>,
    /// Most connections.
    pub max_connections: Option<u64>,
    /// Most requests that wait for a connection.
    pub max_pending_requests: Option<u64>,
    /// Most requests under way.
    pub max_requests: Option<u64>,
}
