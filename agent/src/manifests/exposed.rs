//! The way of VMs to istiod, and of other networks to the mesh: objects beside a gateway that is there, or a load
//! balancer.

use serde_json::{Value, json};

use super::workload::ISTIO;
use super::{Mesh, elsewhere};

/// istiod's port for proxies.
const ISTIOD_PORT: u16 = 15012;

/// Name of the load balancer's Service, where no other is asked for.
pub(crate) const LOAD_BALANCER: &str = "istiod-vms";

/// Services that are exposed on request.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub(crate) enum Exposed {
    /// istiod, on the gateway that VMs come in by.
    Istiod,
    /// istiod, by a load balancer of its own, which is not reached from outside of Google's network.
    IstiodLoadBalancer,
    /// The services of the mesh, for other networks, on the gateway between them.
    Services,
}

pub(super) fn objects(mesh: &Mesh, exposed: Exposed) -> Vec<Value> {
    match exposed {
        Exposed::Istiod => istiod(mesh),
        Exposed::IstiodLoadBalancer => vec![load_balancer(mesh)],
        Exposed::Services => {
            let server = json!({
                "port": { "number": elsewhere::PASSTHROUGH_PORT, "name": "tls", "protocol": "TLS" },
                "tls": { "mode": "AUTO_PASSTHROUGH" },
                "hosts": ["*.local"],
            });
            vec![gateway(mesh, "cross-network-gateway", &server)]
        }
    }
}

/// A note about what has to be there beside the objects.
pub(super) fn note(mesh: &Mesh, exposed: Exposed) -> String {
    let (name, namespace) = ingress(mesh);
    let service = match namespace == mesh.namespace.as_str() {
        true => name.to_owned(),
        false => format!("{name}.{namespace}"),
    };
    match exposed {
        Exposed::Istiod => format!("Service {service} must have port {ISTIOD_PORT}, and pods behind it"),
        Exposed::Services => {
            format!(
                "Service {service} must have port {}, and the label topology.istio.io/network with the name of its network",
                elsewhere::PASSTHROUGH_PORT
            )
        }
        Exposed::IstiodLoadBalancer => format!(
            "put `ingress_service = \"{}\"` into [join.kubernetes] or [join.gke] of the VMs' configuration, unless it is \
             there",
            load_balancers_name(mesh)
        ),
    }
}

/// Name and namespace of the gateway's Service.
fn ingress(mesh: &Mesh) -> (&str, &str) {
    let own = mesh.namespace.as_str();
    mesh.ingress.as_ref().map_or(("istio-eastwestgateway", own), |ingress| {
        let namespace = ingress.namespace.as_ref().map_or(own, |namespace| namespace.as_str());
        (ingress.name.as_str(), namespace)
    })
}

/// istiod keeps its TLS: the gateway passes it through.
fn istiod(mesh: &Mesh) -> Vec<Value> {
    let (_, namespace) = ingress(mesh);
    let name = suffixed(mesh, "istiod");
    let server = json!({
        "port": { "number": ISTIOD_PORT, "name": "tls-istiod", "protocol": "TLS" },
        "tls": { "mode": "PASSTHROUGH" },
        "hosts": ["*"],
    });
    let host = format!("{name}.{}.svc.cluster.local", mesh.namespace);
    let route = json!({
        "apiVersion": ISTIO,
        "kind": "VirtualService",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "hosts": ["*"],
            "gateways": [name],
            "tls": [{
                "match": [{ "port": ISTIOD_PORT, "sniHosts": ["*"] }],
                "route": [{ "destination": { "host": host, "port": { "number": ISTIOD_PORT } } }],
            }],
        },
    });
    vec![gateway(mesh, &name, &server), route]
}

/// Istio's charts label the pods of a gateway with its name less `istio-`.
fn gateway(mesh: &Mesh, name: &str, server: &Value) -> Value {
    let (service, namespace) = ingress(mesh);
    json!({
        "apiVersion": ISTIO,
        "kind": "Gateway",
        "metadata": { "name": name, "namespace": namespace },
        "spec": {
            "selector": { "istio": service.strip_prefix("istio-").unwrap_or(service) },
            "servers": [server],
        },
    })
}

fn load_balancer(mesh: &Mesh) -> Value {
    let mut selector = json!({ "app": "istiod" });
    if let Some(revision) = &mesh.revision {
        selector["istio.io/rev"] = revision.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": load_balancers_name(mesh),
            "namespace": mesh.namespace.as_str(),
            "annotations": { "networking.gke.io/load-balancer-type": "Internal" },
        },
        "spec": {
            "type": "LoadBalancer",
            "selector": selector,
            "ports": [{ "name": "tls-istiod", "port": ISTIOD_PORT, "protocol": "TCP", "targetPort": ISTIOD_PORT }],
        },
    })
}

fn load_balancers_name(mesh: &Mesh) -> &str {
    mesh.ingress
        .as_ref()
        .map_or(LOAD_BALANCER, |ingress| ingress.name.as_str())
}

/// An object of a revision has the revision in its name.
fn suffixed(mesh: &Mesh, name: &str) -> String {
    match &mesh.revision {
        Some(revision) => format!("{name}-{revision}"),
        None => name.to_owned(),
    }
}
