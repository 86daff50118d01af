//! The real control plane: istiod from $LAB_BIN beside a [`Cluster`], with the Services, accounts and WorkloadGroups
//! of the cases.

mod pod;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::istiod::PeerAuthentication;
use crate::kubernetes::Cluster;
use crate::network::{EtcView, Host, Network};
use crate::process::Process;
use crate::{PATIENCE, eventually, programs};

pub use pod::{PilotAgent, RealPod};

/// Vanilla Envoy lacks Istio's own filters, so istiod is told to leave them out.
const ISTIOD_ENV: [(&str, &str); 13] = [
    ("POD_NAME", "istiod-0"),
    ("POD_NAMESPACE", "istio-system"),
    ("REVISION", "default"),
    ("CLUSTER_ID", "Kubernetes"),
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
    lab: PathBuf,
    folder: PathBuf,
    kubeconfig: PathBuf,
    istiod: Option<Process>,
    _cluster: Cluster,
}

impl Real {
    /// Starts them, and waits until istiod has published its root.
    pub fn start(network: &Network) -> Result<Self> {
        let lab = programs::lab().context("LAB_BIN is not set")?;
        let folder = network.folder().join("cluster");
        fs::create_dir_all(&folder)?;
        let cluster = Cluster::start_without_istio(network)?;
        let mut real = Self {
            kubeconfig: cluster.kubeconfig("admin")?,
            _cluster: cluster,
            istiod: None,
            lab,
            folder,
        };
        let definitions = real.lab.join("crd-all.gen.yaml");
        real.kubectl(network, &["create", "--filename", &definitions.to_string_lossy()])?;
        real.apply(network, "mesh", include_str!("../data/kubernetes/mesh.yaml"))?;
        real.start_istiod(network)?;
        eventually("the boutique", PATIENCE, || {
            real.apply(network, "boutique", include_str!("../data/kubernetes/boutique.yaml"))
        })?;
        eventually("the root certificate", PATIENCE, || {
            real.kubectl(
                network,
                &[
                    "get",
                    "configmap",
                    "--namespace",
                    "onlineboutique",
                    "istio-ca-root-cert",
                ],
            )
        })?;
        Ok(real)
    }

    /// Starts istiod, and waits until it serves.
    pub(crate) fn start_istiod(&mut self, network: &Network) -> Result<()> {
        let mut command = network.command(Host::ControlPlane, EtcView::Plain, self.lab.join("pilot-discovery"));
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
            .envs(ISTIOD_ENV);
        command.current_dir(&self.folder);
        let mut istiod = Process::spawn("istiod@cp", command, network.folder())?;
        eventually("istiod", PATIENCE, || {
            istiod.check_alive()?;
            match crate::http::get(network, Host::ControlPlane, 18080, "/ready")? {
                (200, _) => Ok(()),
                (code, body) => bail!("{code}: {body}"),
            }
        })?;
        self.istiod = Some(istiod);
        Ok(())
    }

    /// kill -9.
    pub(crate) fn kill_istiod(&mut self) -> Result<()> {
        self.istiod.take().context("istiod doesn't run")?.kill()
    }

    /// What istioctl makes for a WorkloadGroup.
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
        network.run(Host::ControlPlane, &istioctl, &args).map(drop)
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
        network.run(Host::ControlPlane, "kubectl", &all)
    }
}
