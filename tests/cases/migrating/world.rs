//! Two clusters and a workstation that reaches both.

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::thread;

use anyhow::{Context, Result, bail};
use e2e::istiod::Istiod;
use e2e::kubernetes::{Cluster, MESH};
use e2e::network::{Host, Network};
use serde_json::{Value, json};

use super::desk::{Desk, Ended};
pub(super) use super::desk::{KUBECONFIG, ROUTE, end};

const OBJECTS: &str = include_str!("../../data/kubernetes/migration.yaml");
/// The account by whose token istiod is asked; no controller makes it here.
pub(super) const ACCOUNT: &str =
    "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: onlineboutique}}";
/// All that a migration could touch.
const TOUCHED: [&str; 6] = [
    "/api/v1/namespaces/onlineboutique/services",
    "/apis/discovery.k8s.io/v1/namespaces/onlineboutique/endpointslices",
    "/apis/networking.istio.io/v1/namespaces/onlineboutique/workloadentries",
    "/apis/networking.istio.io/v1/namespaces/onlineboutique/workloadgroups",
    "/apis/networking.istio.io/v1/namespaces/onlineboutique/virtualservices",
    "/apis/networking.istio.io/v1/namespaces/onlineboutique/destinationrules",
];

/// Dropped in this order: the namespaces last.
pub(super) struct World {
    pub(super) clusters: [Cluster; 2],
    pub(super) istiod: Istiod,
    pub(super) network: Network,
}

impl World {
    pub(super) fn start() -> Result<Self> {
        let network = Network::new()?;
        let istiod = Istiod::start(&network)?;
        let (one, two) = thread::scope(|scope| {
            let two = scope.spawn(|| Cluster::start_on(Host::Outside, &network));
            let one = Cluster::start_for(&network, istiod.state());
            let two = two
                .join()
                .unwrap_or_else(|_| bail!("the second cluster's start panicked"));
            (one, two)
        });
        let world = Self {
            clusters: [one?, two?],
            istiod,
            network,
        };
        for cluster in &world.clusters {
            cluster.apply(MESH)?;
            cluster.publish_root("onlineboutique", &world.istiod.state().root_pem())?;
            cluster.apply(OBJECTS)?;
        }
        world.write_file("", "")?;
        Ok(world)
    }

    /// Writes the migration's file; `more` is for the file, `of_one` for the first cluster's table.
    pub(super) fn write_file(&self, more: &str, of_one: &str) -> Result<()> {
        let [one, two] = [0, 1].map(|at| self.clusters[at].kubeconfig("admin"));
        let text = format!(
            "namespace = 'onlineboutique'\nservice = 'productcatalogservice'\nsettle = '10ms'\n\
             vm = {{ workload_group = 'productcatalog' }}\npods = {{ service = 'productcatalogservice-gke' }}\n{more}\n\
             [[clusters]]\nname = 'one'\nkubeconfig = '{}'\n{of_one}\n\
             [[clusters]]\nname = 'two'\nkubeconfig = '{}'\n",
            one?.display(),
            two?.display()
        );
        fs::write(self.file(), text).map_err(Into::into)
    }

    /// The workstation is a pod without a proxy.
    pub(super) fn desk(&self) -> Desk<'_> {
        let [one, two] = &self.clusters;
        Desk {
            network: &self.network,
            host: Host::Pod,
            clusters: [one, two],
        }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.desk().file()
    }

    pub(super) fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        self.desk().spawn(arguments)
    }

    pub(super) fn ctl(&self, arguments: &[&str]) -> Result<Ended> {
        self.desk().ctl(arguments)
    }

    pub(super) fn done(&self, arguments: &[&str]) -> Result<String> {
        self.desk().done(arguments)
    }

    pub(super) fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        self.desk().refused(arguments, words)
    }

    pub(super) fn weights(&self, at: usize) -> Result<[u64; 2]> {
        self.desk().weights(at)
    }

    pub(super) fn expect(&self, weights: [u64; 2]) -> Result<()> {
        self.desk().expect(weights)
    }

    /// All objects of both clusters that a migration could touch, without the versions of the lists.
    pub(super) fn objects(&self) -> Result<Vec<Value>> {
        let mut all = Vec::new();
        for cluster in &self.clusters {
            for path in TOUCHED {
                all.push(cluster.get(path)?["items"].clone());
            }
        }
        Ok(all)
    }

    /// Sets what istiod has given to a pod: one route to the service, by this name.
    pub(super) fn set_route(&self, pod: &str, name: &str) {
        self.give_route(pod, &json!({ "name": name }));
    }

    /// The same, with whatever else the route says.
    pub(super) fn give_route(&self, pod: &str, route: &Value) {
        let host = "productcatalogservice.onlineboutique.svc.cluster.local";
        let hosts = json!([{ "domains": [host], "routes": [route] }]);
        let dump = json!({ "configs": [{ "name": "3550", "virtualHosts": hosts }] });
        self.istiod.state().set_dump(pod, &dump.to_string());
    }
}

/// The documents of a YAML text.
pub(super) fn documents(yaml: &str) -> Result<Vec<Value>> {
    serde_saphyr::from_multiple(yaml).context("what was printed is no YAML")
}

/// A ready pod behind a Service.
pub(super) fn slice(service: &str) -> String {
    format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, ports: [{{port: 3550}}],
          metadata: {{name: {service}-1, namespace: onlineboutique, labels: {{kubernetes.io/service-name: {service}}}}},
          endpoints: [{{addresses: [\"10.200.0.15\"]}}]}}"
    )
}

/// Words about [`wrong_pod`].
pub(super) const WRONG_IMAGE: &str =
    "pod onlineboutique/wrong is not ready: container server: ErrImagePull: registry.example/catalog:2: not found";

/// A pod as kubelet leaves one whose image isn't there.
pub(super) fn wrong_pod(app: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, spec: {{containers: [{{name: server, image: 'registry.example/catalog:2'}}]}},
          metadata: {{name: wrong, namespace: onlineboutique, labels: {{app: {app}}}}},
          status: {{phase: Pending, conditions: [{{type: Ready, status: 'False', reason: ContainersNotReady}}],
                   containerStatuses: [{{name: server, ready: false, restartCount: 0, imageID: '', image: 'registry.example/catalog:2',
                     state: {{waiting: {{reason: ErrImagePull, message: 'registry.example/catalog:2: not found'}}}}}}]}}}}"
    )
}

/// A caller with a sidecar.
pub(super) fn pod(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, status: {{phase: Running}}, spec: {{containers: [{{name: app, image: app}}]}},
          metadata: {{name: {name}, namespace: onlineboutique, labels: {{security.istio.io/tlsMode: istio}}}}}}"
    )
}
