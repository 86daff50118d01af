//! The endpoints of both sides that callers' proxies have. istiod has given them; that a call succeeds they don't say.
//!
//! This question needs no quiet moment before it, unlike those about routes: what istiod computes for it, and keeps, it
//! takes from its endpoints of the moment and not from its last push (`buildEndpoints` in istio/pilot/pkg/xds/eds.go).
//! Of what comes from there a migration changes the subsets alone, and `apply` waits for those.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use super::istiod::Istiod;
use super::sidecars;
use crate::cluster::Cluster;
use crate::migration::Migration;
use crate::objects;

/// One side as the proxies of a cluster have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reach {
    pub(crate) side: &'static str,
    /// The proxies that have the side, each of its endpoints by mutual TLS.
    pub(crate) proxies: usize,
    /// The addresses of the endpoints, or of the gateways before them.
    pub(crate) endpoints: BTreeSet<String>,
    /// The other proxies, each with the reason.
    pub(crate) problems: Vec<String>,
}

/// Asks istiod what each calling proxy of the cluster has of VM and pods; nothing where the file has no istiod to ask.
pub(crate) async fn reach(cluster: &Cluster, migration: &Migration) -> Result<Vec<Reach>> {
    let Some(address) = &cluster.entry.istiod else {
        return Ok(Vec::new());
    };
    let mut sides = ["the VM", "the pods"].map(|side| Reach {
        side,
        proxies: 0,
        endpoints: BTreeSet::new(),
        problems: Vec::new(),
    });
    let suffixes = objects::clusters(migration);
    for namespace in migration.namespaces(&cluster.entry) {
        let names = sidecars(cluster, namespace).await?;
        if names.is_empty() {
            continue;
        }
        let istiod = Istiod::of(cluster, namespace, address.as_str(), migration).await?;
        for (name, dump) in istiod.dumps(names, "eds").await {
            let dump = dump.with_context(|| format!("cluster {}: {name}", cluster.name()))?;
            for (reach, suffix) in sides.iter_mut().zip(&suffixes) {
                reach.add(&name, &endpoints(&dump, suffix));
            }
        }
    }
    Ok(sides.into())
}

impl Reach {
    fn add(&mut self, proxy: &str, endpoints: &[(String, bool)]) {
        let plain: Vec<&str> = endpoints
            .iter()
            .filter_map(|(address, is_mutual)| (!is_mutual).then_some(address.as_str()))
            .collect();
        if endpoints.is_empty() {
            self.problems.push(format!("{proxy} has no endpoint of {}", self.side));
        } else if plain.is_empty() {
            self.proxies += 1;
        } else {
            let plain = plain.join(", ");
            self.problems
                .push(format!("{proxy} calls {plain} of {} without mutual TLS", self.side));
        }
        self.endpoints
            .extend(endpoints.iter().map(|(address, _)| address.clone()));
    }
}

/// The healthy endpoints of the Envoy clusters whose names end so, and whether each is called by mutual TLS.
fn endpoints(dump: &Value, suffix: &str) -> Vec<(String, bool)> {
    let list = |value: &Value, key: &str| value[key].as_array().cloned().unwrap_or_default();
    let of_side = |load: &&Value| load["clusterName"].as_str().is_some_and(|name| name.ends_with(suffix));
    let loads = list(dump, "configs");
    let groups = loads.iter().filter(of_side).flat_map(|load| list(load, "endpoints"));
    let endpoints = groups.flat_map(|group| list(&group, "lbEndpoints"));
    let healthy = endpoints.filter(|endpoint| {
        let health = endpoint["healthStatus"].as_str().unwrap_or("HEALTHY");
        health == "HEALTHY" || health == "UNKNOWN"
    });
    let told = healthy.map(|endpoint| {
        let socket = &endpoint["endpoint"]["address"]["socketAddress"];
        let (address, port) = (socket["address"].as_str().unwrap_or("?"), &socket["portValue"]);
        let mode = &endpoint["metadata"]["filterMetadata"]["envoy.transport_socket_match"]["tlsMode"];
        (format!("{address}:{port}"), mode == "istio")
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn load(host: &str, address: &str, mode: &str, health: &str) -> Value {
        let metadata = json!({ "filterMetadata": { "envoy.transport_socket_match": { "tlsMode": mode } } });
        let endpoint = json!({ "address": { "socketAddress": { "address": address, "portValue": 3550 } } });
        json!({ "clusterName": format!("outbound|3550||{host}"), "endpoints": [{ "lbEndpoints": [
            { "endpoint": endpoint, "metadata": metadata, "healthStatus": health },
        ] }] })
    }

    #[test]
    fn endpoints_are_those_of_the_side_that_are_healthy() {
        let dump = json!({ "configs": [
            load("catalog.boutique", "10.0.0.3", "istio", "HEALTHY"),
            load("catalog-pods.boutique", "10.0.0.9", "disabled", "HEALTHY"),
            load("catalog-pods.boutique", "10.0.0.8", "istio", "UNHEALTHY"),
        ] });
        assert_eq!(
            endpoints(&dump, "||catalog.boutique"),
            [("10.0.0.3:3550".to_owned(), true)]
        );
        assert_eq!(
            endpoints(&dump, "||catalog-pods.boutique"),
            [("10.0.0.9:3550".to_owned(), false)]
        );
        assert_eq!(endpoints(&json!({}), "||catalog.boutique"), []);
    }

    #[test]
    fn proxy_without_a_side_or_without_mutual_tls_is_named() {
        let mut reach = Reach {
            side: "the pods",
            proxies: 0,
            endpoints: BTreeSet::new(),
            problems: Vec::new(),
        };
        reach.add("cart.shop", &[]);
        reach.add("desk.shop", &[("10.0.0.9:3550".to_owned(), false)]);
        reach.add("till.shop", &[("10.0.0.8:3550".to_owned(), true)]);
        assert_eq!(
            reach.problems,
            [
                "cart.shop has no endpoint of the pods",
                "desk.shop calls 10.0.0.9:3550 of the pods without mutual TLS"
            ]
        );
        assert_eq!((reach.proxies, reach.endpoints.len()), (1, 2));
    }
}
