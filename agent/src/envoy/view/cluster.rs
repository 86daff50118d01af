//! envoy.config.cluster.v3, and envoy.admin.v3's word of how its hosts are.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::route::StringMatch;
use super::{Address, number};

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

/// envoy.config.core.v3.TransportSocket, of TLS contexts either way.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TransportSocket {
    /// Name.
    pub name: String,
    /// Its message.
    pub typed_config: TlsContext,
}

impl TransportSocket {
    /// True for TLS.
    pub fn is_tls(&self) -> bool {
        self.name == "envoy.transport_sockets.tls"
    }

    /// The names of which the peer's certificate must have one, in words; none where any will do.
    pub fn expected_names(&self) -> Vec<String> {
        let context = &self.typed_config.common_tls_context;
        let validation = &context.combined_validation_context.default_validation_context;
        let typed = validation.match_typed_subject_alt_names.iter().map(|it| &it.matcher);
        let names = validation.match_subject_alt_names.iter().chain(typed);
        names
            .filter_map(|name| {
                let prefix = name.prefix.as_ref().map(|prefix| format!("{prefix}*"));
                name.exact.clone().or(prefix)
            })
            .collect()
    }
}

/// UpstreamTlsContext or DownstreamTlsContext (envoy.extensions.transport_sockets.tls.v3).
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TlsContext {
    /// What both have.
    pub common_tls_context: CommonTlsContext,
    /// True where a caller must have a certificate.
    pub require_client_certificate: bool,
    /// The name that is called for.
    pub sni: String,
}

/// envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CommonTlsContext {
    /// How the peer is judged.
    pub combined_validation_context: CombinedValidationContext,
}

/// A validation context whose roots come by SDS.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CombinedValidationContext {
    /// What doesn't come by SDS.
    pub default_validation_context: ValidationContext,
}

/// envoy.extensions.transport_sockets.tls.v3.CertificateValidationContext.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ValidationContext {
    /// Names of the peer, of any type.
    pub match_subject_alt_names: Vec<StringMatch>,
    /// Names of the peer, each of a type.
    pub match_typed_subject_alt_names: Vec<TypedMatch>,
}

/// envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct TypedMatch {
    /// The name.
    pub matcher: StringMatch,
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

/// The answer of `/clusters?format=json`.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClusterStatuses {
    /// The clusters.
    pub cluster_statuses: Vec<ClusterStatus>,
}

/// envoy.admin.v3.ClusterStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct ClusterStatus {
    /// Name of the cluster.
    pub name: String,
    /// Its hosts.
    pub host_statuses: Vec<HostStatus>,
}

impl ClusterStatus {
    /// The sum of a stat of all hosts.
    pub fn sum(&self, stat: &str) -> u64 {
        let each = self.host_statuses.iter().map(|host| host.stat(stat));
        each.fold(0, u64::saturating_add)
    }
}

/// envoy.admin.v3.HostStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HostStatus {
    /// Address.
    pub address: Address,
    /// Stats.
    pub stats: Vec<Stat>,
    /// Health.
    pub health_status: HealthStatus,
}

impl HostStatus {
    /// `address:port`, or the path of a unix socket.
    pub fn endpoint(&self) -> String {
        let host = self.address.host();
        match (self.address.socket_address.port_value, host.contains(':')) {
            (0, _) => host.to_owned(),
            (port, true) => format!("[{host}]:{port}"),
            (port, false) => format!("{host}:{port}"),
        }
    }

    /// The value of a stat, 0 where there is none.
    pub fn stat(&self, name: &str) -> u64 {
        let found = self.stats.iter().find(|stat| stat.name == name);
        found.map_or(0, |stat| stat.value)
    }
}

/// A number of a host.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Stat {
    /// Name.
    pub name: String,
    /// Value; absent for 0.
    #[serde(deserialize_with = "number")]
    pub value: u64,
}

/// envoy.admin.v3.HostHealthStatus.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct HealthStatus {
    /// istiod's word: `HEALTHY`, `UNHEALTHY`, `DRAINING`, …
    pub eds_health_status: String,
    /// True where Envoy has ejected the host.
    pub failed_outlier_check: bool,
    /// True where Envoy's own probe fails.
    pub failed_active_health_check: bool,
}

/// envoy.config.endpoint.v3.ClusterLoadAssignment.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Assignment {
    /// The cluster that it is for.
    pub cluster_name: String,
    /// Endpoints by locality.
    pub endpoints: Vec<LocalityEndpoints>,
}

impl Assignment {
    /// The endpoints of all localities.
    pub fn all(&self) -> impl Iterator<Item = &LbEndpoint> {
        self.endpoints.iter().flat_map(|locality| &locality.lb_endpoints)
    }
}

/// envoy.config.endpoint.v3.LocalityLbEndpoints.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct LocalityEndpoints {
    /// Endpoints.
    pub lb_endpoints: Vec<LbEndpoint>,
}

/// envoy.config.endpoint.v3.LbEndpoint.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct LbEndpoint {
    /// The endpoint.
    pub endpoint: Endpoint,
    /// istiod's notes, by which a transport socket is chosen.
    pub metadata: Value,
}

impl LbEndpoint {
    /// True where it takes Istio's mTLS.
    pub fn takes_mtls(&self) -> bool {
        let mode = "/filter_metadata/envoy.transport_socket_match/tlsMode";
        self.metadata.pointer(mode).is_some_and(|mode| mode == "istio")
    }
}

/// envoy.config.endpoint.v3.Endpoint.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Endpoint {
    /// Address.
    pub address: Address,
}
