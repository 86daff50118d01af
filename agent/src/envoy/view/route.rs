//! envoy.config.route.v3.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::string_match::Regex;

/// A route configuration.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RouteConfiguration {
    /// Name.
    pub name: String,
    /// Virtual hosts.
    pub virtual_hosts: Vec<VirtualHost>,
}

/// A virtual host.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct VirtualHost {
    /// Name.
    pub name: String,
    /// Authorities of requests; `*` stands for any end or beginning.
    pub domains: Vec<String>,
    /// Routes, of which the first match counts.
    pub routes: Vec<Route>,
}

/// A route.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Route {
    /// Name.
    pub name: String,
    /// The requests that it is for.
    #[serde(rename = "match")]
    pub matches: RouteMatch,
    /// The cluster that they go to.
    pub route: Option<Action>,
    /// The place that the caller is told to go to.
    pub redirect: Option<Value>,
    /// The answer in place of a call.
    pub direct_response: Option<DirectResponse>,
    /// Configuration of filters for this route alone.
    pub typed_per_filter_config: BTreeMap<String, Value>,
    /// istiod's notes.
    pub metadata: Value,
}

/// envoy.config.route.v3.RouteMatch.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct RouteMatch {
    /// The path's beginning.
    pub prefix: Option<String>,
    /// The whole path.
    pub path: Option<String>,
    /// The path's first segments.
    pub path_separated_prefix: Option<String>,
    /// A regular expression.
    pub safe_regex: Option<Regex>,
    /// Conditions on headers.
    pub headers: Vec<Value>,
    /// Conditions on the query.
    pub query_parameters: Vec<Value>,
}

/// envoy.config.route.v3.RouteAction.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Action {
    /// The cluster.
    pub cluster: Option<String>,
    /// Clusters with weights.
    pub weighted_clusters: Option<WeightedClusters>,
    /// The longest wait for an answer; `0s` is none.
    pub timeout: Option<String>,
    /// When, and how often, it is tried again.
    pub retry_policy: Option<Value>,
}

impl Action {
    /// The clusters with their weights.
    pub fn clusters(&self) -> Vec<WeightedCluster> {
        let one = self.cluster.iter().map(|name| WeightedCluster {
            name: name.clone(),
            weight: 1,
        });
        let several = self.weighted_clusters.iter().flat_map(|it| it.clusters.clone());
        one.chain(several).collect()
    }
}

/// Clusters with weights.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WeightedClusters {
    /// The clusters.
    pub clusters: Vec<WeightedCluster>,
}

/// A cluster and its share of the requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct WeightedCluster {
    /// Name.
    pub name: String,
    /// Share.
    pub weight: u32,
}

/// envoy.config.route.v3.DirectResponseAction.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct DirectResponse {
    /// HTTP status.
    pub status: u16,
}
