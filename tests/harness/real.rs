//! The real control plane, from $LAB_BIN: etcd, kube-apiserver and istiod beside each other in the control plane's
//! namespace, with the Services, accounts and WorkloadGroups of the cases.

mod pod;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use rcgen::{KeyPair, PKCS_RSA_SHA256, RsaKeySize};

use crate::istiod::PeerAuthentication;
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

const KUBECONFIG: &str = "apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: 'https://10.200.0.2:6443', insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: admin}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
";

/// The three of them.
#[derive(Debug)]
pub struct Real {
    lab: PathBuf,
    folder: PathBuf,
    istiod: Option<Process>,
    _apiserver: Process,
    _etcd: Process,
}

impl Real {
    /// Starts them, and waits until istiod has published its root.
    pub fn start(network: &Network) -> Result<Self> {
        let lab = programs::lab().context("LAB_BIN is not set")?;
        let folder = network.folder().join("cluster");
        fs::create_dir_all(&folder)?;
        let mut real = Self {
            _etcd: start_etcd(network, &folder)?,
            _apiserver: start_apiserver(network, &lab, &folder)?,
            istiod: None,
            lab,
            folder,
        };
        fs::write(real.kubeconfig(), KUBECONFIG)?;
        eventually("the API server", PATIENCE, || {
            real.kubectl(network, &["get", "--raw", "/readyz"])
        })?;
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
        let kubeconfig = self.kubeconfig();
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
            .arg(&kubeconfig)
            .env("KUBECONFIG", &kubeconfig)
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
        let kubeconfig = self.kubeconfig().to_string_lossy().into_owned();
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

    fn apply(&self, network: &Network, name: &str, text: &str) -> Result<()> {
        let file = self.folder.join(format!("{name}.yaml"));
        fs::write(&file, text)?;
        self.kubectl(network, &["apply", "--filename", &file.to_string_lossy()])
            .map(drop)
    }

    fn kubectl(&self, network: &Network, args: &[&str]) -> Result<String> {
        let kubeconfig = self.kubeconfig().to_string_lossy().into_owned();
        let cache = self.folder.join("cache").to_string_lossy().into_owned();
        let mut all = vec!["--kubeconfig", &kubeconfig, "--cache-dir", &cache];
        all.extend(args);
        network.run(Host::ControlPlane, "kubectl", &all)
    }

    fn kubeconfig(&self) -> PathBuf {
        self.folder.join("kubeconfig")
    }
}

fn start_etcd(network: &Network, folder: &Path) -> Result<Process> {
    let data = folder.join("etcd").to_string_lossy().into_owned();
    let client = "http://127.0.0.1:2379";
    let mut args = vec![
        "--data-dir",
        &data,
        "--listen-client-urls",
        client,
        "--advertise-client-urls",
        client,
    ];
    args.extend(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync"]);
    network.spawn(Host::ControlPlane, "etcd", "etcd", &args)
}

fn start_apiserver(network: &Network, lab: &Path, folder: &Path) -> Result<Process> {
    let key = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?;
    fs::write(folder.join("sa.key"), key.serialize_pem())?;
    fs::write(folder.join("sa.pub"), key.public_key_pem())?;
    fs::write(folder.join("tokens.csv"), "admin,admin,admin,\"system:masters\"\n")?;
    let mut command: Command = network.command(Host::ControlPlane, EtcView::Plain, lab.join("kube-apiserver"));
    command.args([
        "--etcd-servers=http://127.0.0.1:2379",
        "--secure-port=6443",
        "--bind-address=0.0.0.0",
    ]);
    command.args([
        "--advertise-address=10.200.0.2",
        "--cert-dir=serving",
        "--token-auth-file=tokens.csv",
    ]);
    command.args([
        "--service-account-key-file=sa.pub",
        "--service-account-signing-key-file=sa.key",
    ]);
    command.args([
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
    ]);
    command.args(["--api-audiences=https://kubernetes.default.svc,istio-ca"]);
    command.args([
        "--service-cluster-ip-range=10.96.0.0/16",
        "--disable-admission-plugins=ServiceAccount",
    ]);
    command.current_dir(folder);
    Process::spawn("apiserver@cp", command, network.folder())
}
