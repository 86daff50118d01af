//! envoy.config.listener.v3, and of the filters' own messages what tells where a connection goes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::route::WeightedClusters;
use super::{Address, Rbac, RouteConfiguration, TransportSocket};

/// A listener.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Listener {
    /// Name.
    pub name: String,
    /// The address that it is for.
    pub address: Address,
    /// More of them.
    pub additional_addresses: Vec<AdditionalAddress>,
    /// Filter chains, of which the most specific match gets a connection.
    pub filter_chains: Vec<FilterChain>,
    /// The chain of what matches none.
    pub default_filter_chain: Option<FilterChain>,
    /// `INBOUND` or `OUTBOUND`.
    pub traffic_direction: String,
    /// True where it hands connections on to the listener of their original destination.
    pub use_original_dst: bool,
}

impl Listener {
    /// All filter chains, that of the rest last.
    pub fn chains(&self) -> impl Iterator<Item = &FilterChain> {
        self.filter_chains.iter().chain(&self.default_filter_chain)
    }

    /// All addresses that it listens on.
    pub fn addresses(&self) -> impl Iterator<Item = &Address> {
        let additional = self.additional_addresses.iter().map(|it| &it.address);
        std::iter::once(&self.address).chain(additional)
    }

    /// The port; 0 where there is none.
    pub fn port(&self) -> u16 {
        self.address.socket_address.port_value
    }
}

/// envoy.config.listener.v3.AdditionalAddress.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct AdditionalAddress {
    /// The address.
    pub address: Address,
}

/// A chain of filters.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FilterChain {
    /// Name.
    pub name: String,
    /// The connections that it is for.
    pub filter_chain_match: FilterChainMatch,
    /// Network filters.
    pub filters: Vec<Filter>,
    /// TLS, where it is spoken.
    pub transport_socket: Option<TransportSocket>,
}

impl FilterChain {
    /// The HTTP connection manager, or the TCP proxy.
    pub fn terminal(&self) -> Option<&Filter> {
        self.filters.iter().find(|filter| filter.is_http() || filter.is_tcp())
    }

    /// All of its filters, those within the HTTP connection manager included.
    pub fn all_filters(&self) -> impl Iterator<Item = &Filter> {
        let http = self.filters.iter().flat_map(|filter| &filter.typed_config.http_filters);
        self.filters.iter().chain(http)
    }
}

/// envoy.config.listener.v3.FilterChainMatch.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FilterChainMatch {
    /// Port that the connection was meant for.
    pub destination_port: Option<u16>,
    /// Networks of the address that it was meant for.
    pub prefix_ranges: Vec<CidrRange>,
    /// `tls` or `raw_buffer`.
    pub transport_protocol: String,
    /// ALPN.
    pub application_protocols: Vec<String>,
    /// SNI.
    pub server_names: Vec<String>,
}

/// envoy.config.core.v3.CidrRange.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct CidrRange {
    /// Address.
    pub address_prefix: String,
    /// Length of the prefix.
    pub prefix_len: u8,
}

/// A filter, of connections or of requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Filter {
    /// Name.
    pub name: String,
    /// The filter's message.
    pub typed_config: FilterConfig,
}

impl Filter {
    /// True for the HTTP connection manager.
    pub fn is_http(&self) -> bool {
        self.name == "envoy.filters.network.http_connection_manager"
    }

    /// True for the TCP proxy.
    pub fn is_tcp(&self) -> bool {
        self.name == "envoy.filters.network.tcp_proxy"
    }

    /// True for either filter of authorization.
    pub fn is_rbac(&self) -> bool {
        ["envoy.filters.http.rbac", "envoy.filters.network.rbac"].contains(&self.name.as_str())
    }
}

/// The members that are of use here, of the messages of all filters; none has two of them by one name.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct FilterConfig {
    /// HTTP: the name of a route configuration of istiod's.
    pub rds: Option<Rds>,
    /// HTTP: a route configuration.
    pub route_config: Option<RouteConfiguration>,
    /// HTTP: its filters.
    pub http_filters: Vec<Filter>,
    /// TCP: the cluster.
    pub cluster: String,
    /// TCP: clusters with weights.
    pub weighted_clusters: Option<WeightedClusters>,
    /// RBAC: the policies.
    pub rules: Option<Rbac>,
    /// HTTP faults: requests that are answered instead.
    pub abort: Option<Value>,
    /// HTTP faults: requests that are kept waiting.
    pub delay: Option<Value>,
}

/// envoy.extensions.filters.network.http_connection_manager.v3.Rds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Rds {
    /// Name of the route configuration.
    pub route_config_name: String,
}
