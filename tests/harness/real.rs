//! The real control plane: istiod from $LAB_BIN beside a [`Cluster`], with the Services, accounts and WorkloadGroups
//! of the cases.

mod pair;
mod pod;
mod sidecar;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::istiod::PeerAuthentication;
use crate::kubernetes::{Cluster, GATEWAY_KINDS, service_range};
use crate::network::{EtcView, Host, Network};
use crate::process::Process;
use crate::{PATIENCE, eventually, programs};

pub use pair::{Networks, Pair};
pub use pod::{PilotAgent, RealPod};
pub use sidecar::{PROMETHEUS, Sidecar};

/// Vanilla Envoy lacks Istio's own filters, so istiod is told to leave them out.
const ISTIOD_ENV: [(&str, &str); 12] = [
    ("POD_NAME", "istiod-0"),
    ("POD_NAMESPACE", "istio-system"),
    ("REVISION", "default"),
    ("PILOT_CERT_PROVIDER", "istiod"),
    ("ISTIOD_CUSTOM_HOST", "127.0.0.1,localhost"),
    ("PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", "true"),
    ("PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS", "true"),
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
    ("INJECTION_WEBHOOK_CONFIG_NAME", ""),
    ("VALIDATION_WEBHOOK_CONFIG_NAME", ""),
    ("HOME", "/nonexistent"),
];

/// The three of them.
#[derive(Debug)]
pub struct Real {
    host: Host,
    lab: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
    istiod: Option<Process>,
    /// API server of the istiod.
    pub cluster: Cluster,
}

impl Real {
    /// Starts them, and waits until istiod has published its root.
    pub fn start(network: &Network) -> Result<Self> {
        let mut real = Self::without_istiod(Host::ControlPlane, network)?;
        real.start_istiod(network)?;
        real.open(network)?;
        Ok(real)
    }

    /// Another cluster of the same mesh on a host of its own: its istiod signs with the first one's key.
    pub fn start_beside(first: &Self, host: Host, network: &Network) -> Result<Self> {
        let mut real = Self::without_istiod(host, network)?;
        let key = first
            .cluster
            .get("/api/v1/namespaces/istio-system/secrets/istio-ca-secret")?;
        let key = json!({"apiVersion": "v1", "kind": "Secret", "type": key["type"], "data": key["data"],
            "metadata": {"name": "istio-ca-secret", "namespace": "istio-system"}});
        real.cluster.apply(&key.to_string())?;
        real.start_istiod(network)?;
        real.open(network)?;
        Ok(real)
    }

    /// The cluster's id in the mesh.
    pub fn id(&self) -> &'static str {
        if self.host == Host::SecondControlPlane {
            "second"
        } else {
            "Kubernetes"
        }
    }

    /// Where istiod serves proxies, `host:port`.
    pub fn istiod(&self) -> String {
        Network::address(self.host, 15012)
    }

    fn without_istiod(host: Host, network: &Network) -> Result<Self> {
        let lab = programs::lab().context("LAB_BIN is not set")?;
        let folder = network.folder().join(format!("cluster-{host}"));
        fs::create_dir_all(&folder)?;
        let cluster = Cluster::start_without_istio(host, network)?;
        let real = Self {
            host,
            kubeconfig: cluster.kubeconfig("admin")?,
            cluster,
            istiod: None,
            lab,
            folder,
        };
        let definitions = real.lab.join("crd-all.gen.yaml");
        real.kubectl(network, &["create", "--filename", &definitions.to_string_lossy()])?;
        real.cluster.apply(GATEWAY_KINDS)?;
        let mesh = include_str!("../data/kubernetes/mesh.yaml");
        // The range of its API server.
        let range = service_range(host);
        real.apply(network, "mesh", &mesh.replace("10.96.", range))?;
        Ok(real)
    }

    /// Waits until istiod serves the namespace of the boutique, which it makes.
    fn open(&self, network: &Network) -> Result<()> {
        eventually("the boutique", PATIENCE, || {
            self.apply(network, "boutique", include_str!("../data/kubernetes/boutique.yaml"))
        })?;
        eventually("the root certificate", PATIENCE, || {
            let root = [
                "get",
                "configmap",
                "--namespace",
                "onlineboutique",
                "istio-ca-root-cert",
            ];
            self.kubectl(network, &root).map(drop)
        })
    }

    /// Starts istiod, and waits until it serves.
    pub fn start_istiod(&mut self, network: &Network) -> Result<()> {
        let mut command = network.command(self.host, EtcView::Plain, self.lab.join("pilot-discovery"));
        let kubeconfig = &self.kubeconfig;
        command.args([
            "discovery",
            "--monitoringAddr=127.0.0.1:15014",
            "--httpAddr=:18080",
            "--httpsAddr=:15017",
        ]);
        command.args([
            "--grpcAddr=:15010",
            "--secureGRPCAddr=:15012",
            "--ctrlz_port=0",
            "--domain=cluster.local",
        ]);
        command
            .arg("--kubeconfig")
            .arg(kubeconfig)
            .env("KUBECONFIG", kubeconfig)
            .env("CLUSTER_ID", self.id())
            .envs(ISTIOD_ENV);
        command.current_dir(&self.folder);
        let mut istiod = Process::spawn(&format!("istiod@{}", self.host), command, network.folder())?;
        eventually("istiod", PATIENCE, || {
            istiod.check_alive()?;
            match crate::http::get(network, self.host, 18080, "/ready")? {
                (200, _) => Ok(()),
                (code, body) => bail!("{code}: {body}"),
            }
        })?;
        self.istiod = Some(istiod);
        Ok(())
    }

    /// Pid of istiod; `None` while it doesn't run.
    pub fn istiod_pid(&self) -> Option<u32> {
        self.istiod.as_ref().map(Process::pid)
    }

    /// kill -9.
    pub fn kill_istiod(&mut self) -> Result<()> {
        self.istiod.take().context("istiod doesn't run")?.kill()
    }

    /// Writes a bundle as istioctl makes it for a WorkloadGroup.
    pub fn bundle(&self, network: &Network, group: &str, folder: &Path) -> Result<()> {
        let text = self.kubectl(
            network,
            &["get", "workloadgroup", "-n", "onlineboutique", group, "-o", "yaml"],
        )?;
        let file = self.folder.join(format!("{group}.yaml"));
        fs::write(&file, text)?;
        let istioctl = self.lab.join("istioctl").to_string_lossy().into_owned();
        let (file, folder) = (file.to_string_lossy(), folder.to_string_lossy());
        let kubeconfig = self.kubeconfig.to_string_lossy().into_owned();
        let mut args = vec!["--kubeconfig", &kubeconfig, "x", "workload", "entry", "configure"];
        args.extend([
            "-f",
            &file,
            "-o",
            &folder,
            "--clusterID",
            "Kubernetes",
            "--autoregister",
        ]);
        args.extend(["--ingressIP", "10.200.0.2"]);
        network.run(self.host, &istioctl, &args).map(drop)
    }

    /// Gives the WorkloadGroup of the VM a network; none where that is empty.
    fn set_network_of_vm(&self, network: &Network, name: &str) -> Result<()> {
        if name.is_empty() {
            return Ok(());
        }
        let mut patch = vec![
            "patch",
            "workloadgroup",
            "--namespace",
            "onlineboutique",
            "productcatalog",
        ];
        let text = format!(r#"{{"spec":{{"template":{{"network":"{name}"}}}}}}"#);
        patch.extend(["--type", "merge", "--patch", &text]);
        self.kubectl(network, &patch).map(drop)
    }

    /// The Healthy condition of a WorkloadEntry; `None`: there is no such entry or condition.
    pub(crate) fn healthy(&self, network: &Network, entry: &str) -> Result<Option<bool>> {
        let path = r#"jsonpath={.status.conditions[?(@.type=="Healthy")].status}"#;
        let mut args = vec![
            "get",
            "workloadentry",
            "--namespace",
            "onlineboutique",
            "--ignore-not-found",
        ];
        args.extend([entry, "--output", path]);
        match self.kubectl(network, &args)?.trim() {
            "True" => Ok(Some(true)),
            "False" => Ok(Some(false)),
            "" => Ok(None),
            other => bail!("Healthy is {other:?}"),
        }
    }

    /// Applies a PeerAuthentication for the namespace.
    pub(crate) fn set_peer_authentication(&self, network: &Network, mode: PeerAuthentication) -> Result<()> {
        let mode = format!("{mode:?}").to_uppercase();
        let text = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
             metadata: {{name: default, namespace: onlineboutique}}\nspec: {{mtls: {{mode: {mode}}}}}\n"
        );
        self.apply(network, "peer-authentication", &text)
    }

    /// Adds an endpoint of productcatalogservice that has no Envoy, and has callers try each call once.
    pub(crate) fn add_endpoint(&self, network: &Network, address: &str) -> Result<()> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\n\
             metadata: {{name: productcatalog-plain, namespace: onlineboutique}}\n\
             spec: {{address: {address}, labels: {{app: productcatalogservice}}, ports: {{grpc: 3550}}}}\n---\n\
             apiVersion: networking.istio.io/v1\nkind: VirtualService\n\
             metadata: {{name: productcatalogservice, namespace: onlineboutique}}\n\
             spec: {{hosts: [productcatalogservice], http: [{{retries: {{attempts: 0}}, \
             route: [{{destination: {{host: productcatalogservice}}}}]}}]}}\n"
        );
        self.apply(network, "second-workload", &text)
    }

    /// Makes a service of the mesh of a program that is in none, at its own address and port.
    pub(crate) fn add_service(&self, network: &Network, host: &str, address: &str, port: u16) -> Result<()> {
        let text = format!(
            "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\n\
             metadata: {{name: outside, namespace: onlineboutique}}\n\
             spec: {{hosts: [{host}], addresses: [{address}], location: MESH_EXTERNAL, resolution: STATIC, \
             ports: [{{number: {port}, name: grpc, protocol: GRPC}}], endpoints: [{{address: {address}}}]}}\n"
        );
        self.apply(network, "outside", &text)
    }

    /// Applies objects, written to a file of that name.
    ///
    /// # Errors
    /// When the API server refuses one.
    pub fn apply(&self, network: &Network, name: &str, text: &str) -> Result<()> {
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, text)?;
        self.kubectl(network, &["apply", "--filename", &file.to_string_lossy()])
            .map(drop)
    }

    fn kubectl(&self, network: &Network, args: &[&str]) -> Result<String> {
        let kubeconfig = self.kubeconfig.to_string_lossy().into_owned();
        let cache = self.folder.join("cache").to_string_lossy().into_owned();
        let mut all = vec!["--kubeconfig", &kubeconfig, "--cache-dir", &cache];
        all.extend(args);
        network.run(self.host, "kubectl", &all)
    }
}
