//! The services that Envoy knows: those that this VM may call, and those by which it is called. Pure.

use std::net::IpAddr;

use crate::envoy::view::ClusterStatus;

/// Namespaces whose services are the cluster's own affair.
const OF_THE_CLUSTER: [&str; 3] = ["default", "istio-system", "kube-system"];

/// A service's host and port.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Service {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Service {
    /// The service of a cluster of istiod's, `outbound|PORT||HOST`; `None` for a subset, and for any other cluster.
    pub(super) fn of(cluster: &str) -> Option<Self> {
        let mut parts = cluster.split('|');
        let ("outbound", port, "", host) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?) else {
            return None;
        };
        Some(Self {
            host: host.to_owned(),
            port: port.parse().ok()?,
        })
    }

    fn namespace(&self) -> &str {
        self.host.split('.').nth(1).unwrap_or_default()
    }
}

/// The services that this VM, which has these addresses, is an endpoint of.
pub(super) fn own(clusters: &[ClusterStatus], addresses: &[IpAddr]) -> Vec<Service> {
    let has_ours = |cluster: &&ClusterStatus| endpoints(cluster).any(|it| addresses.contains(&it));
    let mut found: Vec<Service> = clusters
        .iter()
        .filter(has_ours)
        .filter_map(|cluster| Service::of(&cluster.name))
        .collect();
    found.sort();
    found
}

/// The services with a healthy endpoint that are others' than this VM's: those of `namespace` first, then of any that isn't
/// the cluster's own.
pub(super) fn callable(clusters: &[ClusterStatus], addresses: &[IpAddr], namespace: &str) -> Vec<Service> {
    let is_up = |cluster: &&ClusterStatus| {
        let mut healthy = cluster.host_statuses.iter();
        let has_healthy = healthy.any(|host| host.health_status.eds_health_status == "HEALTHY");
        has_healthy && !endpoints(cluster).any(|it| addresses.contains(&it))
    };
    let services = clusters
        .iter()
        .filter(is_up)
        .filter_map(|cluster| Service::of(&cluster.name));
    let mut fit: Vec<Service> = services
        .filter(|service| !OF_THE_CLUSTER.contains(&service.namespace()) || service.namespace() == namespace)
        .collect();
    fit.sort_by_cached_key(|service| (service.namespace() != namespace, service.clone()));
    fit
}

fn endpoints(cluster: &ClusterStatus) -> impl Iterator<Item = IpAddr> + '_ {
    let hosts = cluster.host_statuses.iter();
    hosts.filter_map(|host| host.address.host().parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn clusters(all: &[(&str, &str, &str)]) -> Vec<ClusterStatus> {
        let made = all.iter().map(|(name, address, health)| {
            json!({ "name": name, "host_statuses": [{
                "address": { "socket_address": { "address": address, "port_value": 1 } },
                "health_status": { "eds_health_status": health },
            }] })
        });
        made.map(|it| serde_json::from_value(it).unwrap()).collect()
    }

    #[test]
    fn services_are_told_apart_by_whose_endpoints_they_have() {
        let found = clusters(&[
            (
                "outbound|443||kubernetes.default.svc.cluster.local",
                "10.0.0.9",
                "HEALTHY",
            ),
            ("outbound|80||a.other.svc.cluster.local", "10.0.0.8", "HEALTHY"),
            ("outbound|80||down.shop.svc.cluster.local", "10.0.0.7", "UNHEALTHY"),
            ("outbound|7070|v2|cart.shop.svc.cluster.local", "10.0.0.6", "HEALTHY"),
            ("outbound|7070||cart.shop.svc.cluster.local", "10.0.0.6", "HEALTHY"),
            ("outbound|3550||catalog.shop.svc.cluster.local", "10.1.0.1", "HEALTHY"),
            ("inbound|3550||", "10.1.0.1", "HEALTHY"),
            ("xds-grpc", "10.0.0.5", "HEALTHY"),
        ]);
        let addresses = ["10.1.0.1".parse().unwrap()];
        let told = |service: &Service| format!("{}:{}", service.host, service.port);
        let own: Vec<String> = own(&found, &addresses).iter().map(told).collect();
        assert_eq!(own, ["catalog.shop.svc.cluster.local:3550"]);
        let callable =
            |namespace: &str| -> Vec<String> { callable(&found, &addresses, namespace).iter().map(told).collect() };
        let (cart, other) = ("cart.shop.svc.cluster.local:7070", "a.other.svc.cluster.local:80");
        assert_eq!(callable("shop"), [cart, other]);
        assert_eq!(callable("third"), [other, cart]);
        assert_eq!(callable("default")[0], "kubernetes.default.svc.cluster.local:443");
    }
}
