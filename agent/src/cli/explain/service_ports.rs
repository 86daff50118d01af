//! The ports of the mesh's services, as far as Envoy knows them. Pure.

use super::call::Call;
use super::cause::Cause;
use super::chain::{Chain, LISTENER};
use super::state::Envoy;

/// The mesh's service is there, and has no such port; or Envoy was told of none of its ports.
pub(super) fn wrong_port(envoy: &Envoy, call: &Call<'_>, service: &str, chain: &mut Chain) {
    let ports = ports_of(envoy, service);
    if ports.contains(&call.port) {
        chain.fault(
            LISTENER,
            Cause::NoListener,
            format!(
                "Envoy has a cluster for port {} of {service}, and no listener for {}",
                call.port, call.address
            ),
            "istiod gives listeners for the families of this VM's addresses alone: see ISTIO_DUAL_STACK",
        );
        return;
    }
    let known = match ports.as_slice() {
        [] => "Envoy knows none of its ports (a Sidecar or exportTo may keep it from this VM)".to_owned(),
        ports => format!(
            "it has {}",
            ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
        ),
    };
    chain.fault(
        LISTENER,
        Cause::WrongPort,
        format!("{service} has no port {}: {known}", call.port),
        match ports.first() {
            Some(port) => format!("call port {port}, or add {} to the Service", call.port),
            None => format!("export the Service to this VM's namespace, with port {}", call.port),
        },
    );
}

/// The ports of a service that Envoy has clusters for (`outbound|PORT|SUBSET|HOST`).
pub(super) fn ports_of(envoy: &Envoy, service: &str) -> Vec<u16> {
    let ports = envoy.clusters.iter().filter_map(|cluster| {
        let parts: Vec<&str> = cluster.name.split('|').collect();
        match parts.as_slice() {
            ["outbound", port, _, host] if *host == service => port.parse().ok(),
            _ => None,
        }
    });
    let mut ports: Vec<u16> = ports.collect();
    ports.sort_unstable();
    ports.dedup();
    ports
}
