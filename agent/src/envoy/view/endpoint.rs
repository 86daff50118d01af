//! envoy.config.endpoint.v3.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Address;

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
