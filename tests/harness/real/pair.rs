//! Two real clusters of one mesh, each with a control plane of its own: a VM and a caller in the first one, a caller and a
//! pod that serves what the VM does in the second one.

use anyhow::Result;
use serde_json::json;

use super::Real;
use super::sidecar::{Named, Role, Sidecar};
use crate::calls::{Calling, Load};
use crate::network::{Host, Network};
use crate::process::Process;
use crate::vm::{Agent, Settings, Vm};
use crate::{PATIENCE, eventually, programs};

const BOUTIQUE: &str = "onlineboutique";

/// Networks of the clusters, by which they reach each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Networks {
    /// Every pod reaches every other.
    One,
    /// Only by the gateways.
    Two,
}

/// See the module. Dropped in this order: the VM first, the namespaces last.
#[derive(Debug)]
pub struct Pair {
    /// The VM's agent.
    pub agent: Agent,
    /// The VM.
    pub vm: Vm,
    /// Process that serves in the second cluster.
    pub catalog: Process,
    /// Of the pod that serves in the second cluster.
    _sidecar: Sidecar,
    /// The caller of each cluster.
    pub callers: [Sidecar; 2],
    _cart: Process,
    _gateways: Vec<Sidecar>,
    /// The VM's first.
    pub clusters: [Real; 2],
    /// The namespaces.
    pub network: Network,
}

impl Pair {
    /// Starts all of it. `app` is the label of the pod that serves; with `remote_secrets` each istiod reads the other's API
    /// server.
    pub fn start(networks: Networks, app: &str, remote_secrets: bool) -> Result<Self> {
        let network = Network::of_two_clusters()?;
        let one = Real::start(&network)?;
        let two = Real::start_beside(&one, Host::SecondControlPlane, &network)?;
        let clusters = [one, two];
        let mut gateways = Vec::new();
        for (cluster, other) in [(0, 1), (1, 0)] {
            if remote_secrets {
                clusters[cluster].cluster.apply(&remote_secret(&clusters[other])?)?;
            }
            if networks == Networks::Two {
                gateways.push(start_gateway(&network, &clusters[cluster])?);
            }
        }
        if networks == Networks::Two {
            let one = [Host::ControlPlane, Host::Vm, Host::Pod, Host::Gateway];
            let two = [
                Host::SecondControlPlane,
                Host::SecondPod,
                Host::SecondCatalog,
                Host::SecondGateway,
            ];
            network.fence([&one, &two], &[6443, 15443])?;
        }
        let pod = |at: usize, host, account, app| {
            let named = Named {
                account,
                app,
                network: name_of(networks, at),
            };
            Sidecar::start(&network, &clusters[at], host, Role::Sidecar, named)
        };
        let callers = [
            pod(0, Host::Pod, "cartservice", "cartservice")?,
            pod(1, Host::SecondPod, "cartservice", "desk")?,
        ];
        let sidecar = pod(1, Host::SecondCatalog, "productcatalog", app)?;
        clusters[0]
            .cluster
            .apply(&slice(BOUTIQUE, "cartservice", 7070, Host::Pod))?;
        let cart = network.spawn(Host::Pod, "cart", programs::productcatalog()?, &["--port", "7070"])?;
        let catalog = network.spawn(Host::SecondCatalog, "catalog", programs::productcatalog()?, &[])?;
        let vm = Vm::new(&network, Settings::default())?;
        clusters[0].set_network_of_vm(&network, name_of(networks, 0))?;
        clusters[0].bundle(&network, "productcatalog", &vm.bundle())?;
        let mut agent = vm.start_agent(&network)?;
        agent.wait_until_ready(&network)?;
        Ok(Self {
            agent,
            vm,
            catalog,
            _sidecar: sidecar,
            callers,
            _cart: cart,
            _gateways: gateways,
            clusters,
            network,
        })
    }

    /// Puts the pod of the second cluster behind a Service of its own cluster.
    pub fn serve_pod_as(&self, service: &str) -> Result<()> {
        let slice = slice(BOUTIQUE, service, 3550, Host::SecondCatalog);
        self.clusters[1].cluster.apply(&slice)
    }

    /// 200 calls a second from each cluster, until they are stopped, once each is answered.
    pub fn start_calls(&self) -> Result<[Calling; 2]> {
        self.start_load(&load(), 200)
    }

    /// 100 calls a second from each cluster, each on a connection of its own.
    pub fn start_connections(&self) -> Result<[Calling; 2]> {
        let load = Load {
            reconnect: true,
            ..load()
        };
        self.start_load(&load, 100)
    }

    fn start_load(&self, load: &Load, rate: u32) -> Result<[Calling; 2]> {
        for host in [Host::Pod, Host::SecondPod] {
            eventually(format!("a first answer for {host}"), PATIENCE, || {
                let few = load.clone().as_fast_as_answered(5, 1);
                few.run(&self.network, host)?.expect_all_answered()
            })?;
        }
        let of = |host| load.clone().until_stopped(rate).start(&self.network, host);
        Ok([of(Host::Pod)?, of(Host::SecondPod)?])
    }
}

fn load() -> Load {
    Load::on("productcatalogservice.onlineboutique:3550")
}

fn name_of(networks: Networks, at: usize) -> &'static str {
    match networks {
        Networks::One => "",
        Networks::Two => ["network1", "network2"][at],
    }
}

/// Remote secret that has an istiod read the API server of `of`.
fn remote_secret(of: &Real) -> Result<String> {
    let kubeconfig = std::fs::read_to_string(&of.kubeconfig)?;
    let name = format!("istio-remote-secret-{}", of.id().to_lowercase());
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "stringData": { of.id(): kubeconfig },
        "metadata": { "name": name, "namespace": "istio-system", "labels": { "istio/multiCluster": "true" },
                      "annotations": { "networking.istio.io/cluster": of.id() } } });
    Ok(secret.to_string())
}

/// The east-west gateway of a cluster, for all that the other network may call.
fn start_gateway(network: &Network, cluster: &Real) -> Result<Sidecar> {
    let (at, host) = if cluster.host == Host::ControlPlane {
        (0, Host::Gateway)
    } else {
        (1, Host::SecondGateway)
    };
    let own = name_of(Networks::Two, at);
    if at == 1 {
        // The first one's istiod would send proxies without a network through the gateway to their own cluster.
        let label = json!({ "apiVersion": "v1", "kind": "Namespace",
            "metadata": { "name": "istio-system", "labels": { "topology.istio.io/network": own } } });
        cluster.cluster.apply(&label.to_string())?;
    }
    let address = host.ipv4();
    cluster.cluster.apply(&format!(
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {{name: eastwest, namespace: istio-system}}\n---\n\
         apiVersion: v1\nkind: Service\n\
         metadata: {{name: eastwest, namespace: istio-system, labels: {{istio: eastwest, topology.istio.io/network: {own}}}}}\n\
         spec: {{type: LoadBalancer, selector: {{app: eastwest}}, ports: [{{name: tls, port: 15443, targetPort: 15443}}]}}\n\
         status: {{loadBalancer: {{ingress: [{{ip: {address}}}]}}}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: Gateway\nmetadata: {{name: eastwest, namespace: istio-system}}\n\
         spec: {{selector: {{app: eastwest}}, servers: [{{port: {{number: 15443, name: tls, protocol: TLS}}, \
         tls: {{mode: AUTO_PASSTHROUGH}}, hosts: ['*.local']}}]}}\n"
    ))?;
    cluster.cluster.apply(&slice("istio-system", "eastwest", 15443, host))?;
    let named = Named {
        account: "eastwest",
        app: "eastwest",
        network: own,
    };
    Sidecar::start(network, cluster, host, Role::Gateway, named)
}

/// A Service's endpoint, as Kubernetes' controller writes it of a Pod.
fn slice(namespace: &str, service: &str, port: u16, host: Host) -> String {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": { "name": format!("{service}-pods"), "namespace": namespace,
                      "labels": { "kubernetes.io/service-name": service } },
        "ports": [{ "name": if port == 15443 { "tls" } else { "grpc" }, "port": port, "protocol": "TCP" }],
        "endpoints": [{ "addresses": [host.ipv4()], "conditions": { "ready": true },
            "targetRef": { "kind": "Pod", "name": host.to_string(), "namespace": namespace } }],
    });
    slice.to_string()
}
