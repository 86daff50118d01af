//! The way to a container on Docker's bridge: one listener, to which the rules send what Envoy's inbound clusters call
//! at a published port, and one cluster a port, whose endpoint is the container's address. Not in Istio.
//!
//! Through docker-proxy instead, calls would end with every restart of dockerd.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use super::addresses::tcp;
use super::options::PublishedPort;
use crate::config::{PortMapping, ports};
use crate::facts::Membership;

/// The name of the cluster of a published port.
pub(in crate::envoy) fn cluster_name(port: PortMapping) -> String {
    format!("container|{}", port.host)
}

/// The listener that the rules send calls to the container to; `None` when nothing is published.
pub(super) fn listener(membership: &Membership, published: &[PublishedPort]) -> Option<Value> {
    if published.is_empty() {
        return None;
    }
    let chain = |PublishedPort { mapping, .. }: &PublishedPort| {
        json!({
            "filter_chain_match": { "destination_port": mapping.host },
            "filters": [{
                "name": "envoy.filters.network.tcp_proxy",
                "typed_config": {
                    "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                    "stat_prefix": "container",
                    "cluster": cluster_name(*mapping),
                    // How long a connection may be idle is for the listener to say that it came in by.
                    "idle_timeout": "0s",
                },
            }],
        })
    };
    let mut listener = json!({
        "name": "container",
        "address": tcp(Ipv4Addr::LOCALHOST.into(), ports::CONTAINER),
        // Each of its connections is another's, which has been counted.
        "ignore_global_conn_limit": true,
        "bypass_overload_manager": true,
        // The rules have sent them here; which port was called tells the container's.
        "listener_filters": [{
            "name": "envoy.filters.listener.original_dst",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
            },
        }],
        "filter_chains": published.iter().map(chain).collect::<Value>(),
    });
    if membership.instance_ips.iter().any(|ip| ip.is_ipv6()) {
        let address = tcp(Ipv6Addr::LOCALHOST.into(), ports::CONTAINER);
        listener["additional_addresses"] = json!([{ "address": address }]);
    }
    Some(listener)
}

/// The clusters of the published ports, which learn the container's address from its file of endpoints.
pub(super) fn clusters(published: &[PublishedPort]) -> Vec<Value> {
    let cluster = |PublishedPort { mapping, endpoints }: &PublishedPort| {
        json!({
            "name": cluster_name(*mapping),
            "alt_stat_name": format!("{};", cluster_name(*mapping)),
            "type": "EDS",
            "connect_timeout": "1s",
            "eds_cluster_config": { "eds_config": {
                "path_config_source": { "path": endpoints },
                "resource_api_version": "V3",
            } },
        })
    };
    published.iter().map(cluster).collect()
}
