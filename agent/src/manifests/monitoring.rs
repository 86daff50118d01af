//! The VMs as Prometheus' operator scrapes them. There is no Pod or Service of theirs with the port: a PodMonitor or
//! ServiceMonitor finds nothing.

use std::net::{IpAddr, SocketAddr};

use serde_json::{Value, json};

use super::Group;
use crate::config::ports;

/// A `ScrapeConfig` (prometheus-operator, v1alpha1): one page has the agent's metrics, Envoy's and the application's.
pub(super) fn scrape_config(group: &Group, addresses: &[IpAddr]) -> Value {
    let target = |address: &IpAddr| SocketAddr::new(*address, ports::STATUS).to_string();
    json!({
        "apiVersion": "monitoring.coreos.com/v1alpha1",
        "kind": "ScrapeConfig",
        "metadata": { "name": group.name.as_str(), "namespace": group.namespace.as_str() },
        "spec": {
            "jobName": "istio-vm-agent",
            "staticConfigs": [{
                "targets": addresses.iter().map(target).collect::<Vec<_>>(),
                "labels": { "namespace": group.namespace.as_str(), "app": group.service.as_str() },
            }],
        },
    })
}
