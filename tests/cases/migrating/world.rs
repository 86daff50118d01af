//! Two clusters and a workstation that reaches both.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use e2e::istiod::Istiod;
use e2e::kubernetes::{Cluster, MESH};
use e2e::network::{EtcView, Host, Network};
use e2e::{PATIENCE, eventually, programs};
use serde_json::{Value, json};

const OBJECTS: &str = include_str!("../../data/kubernetes/migration.yaml");
pub(super) const ROUTE: &str =
    "/apis/networking.istio.io/v1/namespaces/onlineboutique/virtualservices/productcatalogservice-migration";
/// The account by whose token istiod is asked; no controller makes it here.
pub(super) const ACCOUNT: &str =
    "{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: onlineboutique}}";
/// The operator's kubeconfig, beside the migration's file.
pub(super) const KUBECONFIG: &str = "kubeconfig";
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

/// What the program printed, and how it ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) is_success: bool,
    pub(super) text: String,
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

    pub(super) fn file(&self) -> PathBuf {
        self.network.folder().join("migration.toml")
    }

    /// The program, not started yet, in the folder of its file.
    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = self.network.command(Host::Pod, EtcView::Plain, programs::ctl()?);
        let folder = self.network.folder();
        command.current_dir(folder).env("KUBECONFIG", folder.join(KUBECONFIG));
        command.arg("--file").arg(self.file()).args(arguments);
        Ok(command)
    }

    /// Starts the program with pipes.
    pub(super) fn spawn(&self, arguments: &[&str]) -> Result<Child> {
        let mut command = self.command(arguments)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?)
    }

    /// Runs the program to its end.
    pub(super) fn ctl(&self, arguments: &[&str]) -> Result<Ended> {
        Ok(ended(&self.command(arguments)?.output()?))
    }

    /// The same, which must succeed.
    pub(super) fn done(&self, arguments: &[&str]) -> Result<String> {
        let ended = self.ctl(arguments)?;
        ensure!(ended.is_success, "{arguments:?}: {}", ended.text);
        Ok(ended.text)
    }

    /// The same, which must fail with these words.
    pub(super) fn refused(&self, arguments: &[&str], words: &str) -> Result<()> {
        let ended = self.ctl(arguments)?;
        ensure!(!ended.is_success, "{arguments:?} succeeded: {}", ended.text);
        ensure!(
            ended.text.contains(words),
            "{arguments:?} says not {words:?}: {}",
            ended.text
        );
        Ok(())
    }

    /// The weights of VM and pods in a cluster.
    pub(super) fn weights(&self, at: usize) -> Result<[u64; 2]> {
        let route = self.clusters[at].get(ROUTE)?;
        let weight = |side: usize| route["spec"]["http"][0]["route"][side]["weight"].as_u64();
        Ok([0, 1].map(|side| weight(side).unwrap_or(u64::MAX)))
    }

    /// Both clusters have these weights.
    pub(super) fn expect(&self, weights: [u64; 2]) -> Result<()> {
        let both = [self.weights(0)?, self.weights(1)?];
        ensure!(both == [weights; 2], "the weights are {both:?}");
        Ok(())
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

    /// What istiod has given to a pod: one route to the service, by this name.
    pub(super) fn set_route(&self, pod: &str, name: &str) {
        let host = "productcatalogservice.onlineboutique.svc.cluster.local";
        let hosts = json!([{ "domains": [host], "routes": [{ "name": name }] }]);
        let dump = json!({ "configs": [{ "name": "3550", "virtualHosts": hosts }] });
        self.istiod.state().set_dump(pod, &dump.to_string());
    }
}

/// Waits for the end of a program that was started with pipes, and ends it where it doesn't.
pub(super) fn end(mut child: Child) -> Result<Ended> {
    let has_ended = eventually("the program's end", PATIENCE, || {
        ensure!(child.try_wait()?.is_some(), "it still runs");
        Ok(())
    });
    if has_ended.is_err() {
        child.kill()?;
    }
    let ended = ended(&child.wait_with_output()?);
    has_ended.with_context(|| ended.text.clone())?;
    Ok(ended)
}

fn ended(output: &Output) -> Ended {
    let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    Ended {
        is_success: output.status.success(),
        text: text.concat(),
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

/// A caller with a sidecar.
pub(super) fn pod(name: &str) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, status: {{phase: Running}}, spec: {{containers: [{{name: app, image: app}}]}},
          metadata: {{name: {name}, namespace: onlineboutique, labels: {{security.istio.io/tlsMode: istio}}}}}}"
    )
}
