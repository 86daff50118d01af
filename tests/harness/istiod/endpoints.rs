//! The endpoints of productcatalogservice, as istiod makes them: the VMs that are registered and healthy, and those that
//! a case adds. They are pushed to Envoys by ADS, and to the pod, whose Envoy is nobody's client, by a file.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use tokio::time::interval;

use super::state::State;
use crate::envoy::socket_address;
use crate::network::Network;

/// PILOT_DEBOUNCE_AFTER.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// Port of every endpoint.
const PORT: u16 = 3550;
/// The pod's name for the cluster.
const CLUSTER: &str = "catalog";

/// Addresses; true for those that are called over mTLS.
pub(super) type Endpoints = BTreeMap<String, bool>;

/// Where the pod's Envoy reads its endpoints.
pub(crate) fn file(network: &Network) -> PathBuf {
    network.folder().join("pod-endpoints.json")
}

/// A cluster of the endpoints in the file, over mTLS to those that have Envoy before them.
pub(crate) fn cluster(network: &Network, tls: Value) -> Value {
    let mut cluster = crate::envoy::http2_cluster(CLUSTER, "", 0, None);
    cluster["type"] = "EDS".into();
    cluster["eds_cluster_config"] = json!({"eds_config": {"path_config_source": {"path": file(network)}}});
    cluster["transport_socket_matches"] = json!([
        {"name": "mtls", "match": {"tlsMode": "istio"}, "transport_socket": tls},
        {"name": "plaintext", "match": {}, "transport_socket": {"name": "plaintext", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
        }}},
    ]);
    if let Some(cluster) = cluster.as_object_mut() {
        cluster.remove("load_assignment");
    }
    cluster
}

/// Pushes the endpoints whenever they are others.
pub(super) async fn follow(state: Arc<State>, file: PathBuf) {
    let mut ticks = interval(DEBOUNCE);
    let mut pushed = None;
    loop {
        ticks.tick().await;
        let endpoints = state.endpoints();
        if pushed.as_ref() != Some(&endpoints) && write(&file, &endpoints).is_ok() {
            state.push_endpoints(&endpoints);
            pushed = Some(endpoints);
        }
    }
}

/// Moves it into place, which is what Envoy watches for.
pub(super) fn write(file: &PathBuf, endpoints: &Endpoints) -> Result<()> {
    let endpoints = endpoints.iter().map(|(address, in_mesh)| {
        let mut endpoint = json!({"endpoint": {"address": socket_address(address, PORT)}});
        if *in_mesh {
            endpoint["metadata"] = json!({"filter_metadata": {"envoy.transport_socket_match": {"tlsMode": "istio"}}});
        }
        endpoint
    });
    let assignment = json!({
        "@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
        "cluster_name": CLUSTER,
        "endpoints": [{"lb_endpoints": endpoints.collect::<Vec<_>>()}],
    });
    let new = file.with_extension("new");
    fs::write(&new, serde_json::to_vec(&json!({"resources": [assignment]}))?)?;
    Ok(fs::rename(new, file)?)
}
