//! A Pod of a real cluster: the object, as a kubelet would report it, and on its host pilot-agent as injection starts it, or
//! the chart of a gateway.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::Real;
use super::pod::{PROXY, give_to_proxy};
use crate::network::{EtcView, Host, Network};
use crate::process::{Process, output_of};
use crate::{PATIENCE, eventually, http, programs};

/// Where a Prometheus of the cases listens beside a proxy, which leaves it alone.
pub const PROMETHEUS: u16 = 9090;

/// The part of a proxy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Role {
    /// Beside an application of namespace onlineboutique.
    Sidecar,
    /// Between two networks, in namespace istio-system.
    Gateway,
}

/// A Pod and its proxy.
#[derive(Debug)]
pub struct Sidecar {
    host: Host,
    _process: Process,
}

/// Marks that a Pod is known by.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Service account of the Pod.
    pub account: &'a str,
    /// Label `app` of the Pod.
    pub app: &'a str,
    /// Network of the Pod; empty: the mesh has one.
    pub network: &'a str,
}

impl Role {
    fn namespace(self) -> &'static str {
        match self {
            Self::Sidecar => "onlineboutique",
            Self::Gateway => "istio-system",
        }
    }
}

impl Sidecar {
    /// Makes the Pod in `cluster`, and waits until its proxy serves.
    pub fn start(network: &Network, cluster: &Real, host: Host, role: Role, named: Named<'_>) -> Result<Self> {
        cluster.cluster.apply(&pod(host, role, named).to_string())?;
        let root = network.folder().join(format!("pilot-agent-{host}"));
        lay_out(&root, cluster, host, role, named)?;
        let address = cluster.host.ipv4();
        let hosts = network.hosts_file(host, EtcView::Plain);
        fs::write(
            &hosts,
            format!("127.0.0.1 localhost\n{address} istiod.istio-system.svc\n"),
        )?;
        let program = programs::lab().context("LAB_BIN is not set")?.join("pilot-agent");
        let environment = environment(&root, cluster, host, role, named);
        if role == Role::Sidecar {
            let mut rules = network.command(host, EtcView::Plain, &program);
            rules.args([
                "istio-iptables",
                "-u",
                PROXY,
                "-g",
                PROXY,
                "-m",
                "REDIRECT",
                "-i",
                "*",
                "-b",
                "*",
            ]);
            rules.args(["-d", &format!("15090,15021,15020,{PROMETHEUS}")]);
            output_of({
                rules.envs(environment.clone()).current_dir(&root);
                rules
            })?;
        }
        let mut proxy = network.command(host, EtcView::Plain, "setpriv");
        proxy.args(["--reuid", PROXY, "--regid", PROXY, "--clear-groups", "sh", "-c"]);
        // Envoy re-opens /dev/stdout, which as its own user it can do with a pipe only.
        proxy.arg(r#""$0" proxy "$@" 2>&1 | cat"#).arg(&program);
        proxy.arg(if role == Role::Sidecar { "sidecar" } else { "router" });
        proxy.args(["--domain", &format!("{}.svc.cluster.local", role.namespace())]);
        proxy.envs(environment).current_dir(&root);
        let mut process = Process::spawn(&format!("pilot-agent@{host}"), proxy, network.folder())?;
        eventually(format!("pilot-agent on {host}"), PATIENCE, || {
            process.check_alive()?;
            let (code, body) = http::get(network, host, 15021, "/healthz/ready")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        Ok(Self {
            host,
            _process: process,
        })
    }

    /// The calls that its Envoy has sent to a host of the mesh on port 3550, whatever the subset.
    pub fn sent(&self, network: &Network, subset: &str, host: &str) -> Result<u64> {
        let (_, page) = http::get(network, self.host, 15000, "/clusters")?;
        let cluster = format!("outbound|3550|{subset}|{host}::");
        let counts = page.lines().filter_map(|line| {
            let count = line.strip_prefix(&cluster)?.split_once("::rq_total::")?.1;
            count.parse::<u64>().ok()
        });
        Ok(counts.sum())
    }
}

/// As its kubelet reports it.
fn pod(host: Host, role: Role, named: Named<'_>) -> Value {
    let address = host.ipv4();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": host.to_string(), "namespace": role.namespace(), "labels": {
            "app": named.app, "topology.istio.io/network": named.network, "security.istio.io/tlsMode": "istio",
        } },
        "spec": { "serviceAccountName": named.account, "containers": [{ "name": "app", "image": "none" }] },
        "status": { "phase": "Running", "podIP": address, "podIPs": [{ "ip": address }],
            "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

/// The files that pilot-agent looks for, from its working directory.
fn lay_out(root: &Path, cluster: &Real, host: Host, role: Role, named: Named<'_>) -> Result<()> {
    let namespace = role.namespace();
    let map = |namespace: &str, name: &str| {
        cluster
            .cluster
            .get(&format!("/api/v1/namespaces/{namespace}/configmaps/{name}"))
    };
    let path = format!("/api/v1/namespaces/{namespace}/pods/{host}");
    let labels = cluster.cluster.get(&path)?["metadata"]["labels"].clone();
    let labels = labels.as_object().into_iter().flatten();
    let labels: String = labels.map(|(key, value)| format!("{key}={value}\n")).collect();
    let root_certificate = eventually("the root certificate", PATIENCE, || {
        text(&map(namespace, "istio-ca-root-cert")?["data"]["root-cert.pem"])
    })?;
    let token = cluster
        .cluster
        .service_account_token(namespace, named.account, Some("istio-ca"))?;
    let template = fs::read_to_string(cluster.lab.join("envoy_bootstrap.json"))?;
    let mesh = text(&map("istio-system", "istio")?["data"]["mesh"])?;
    for (at, text) in [
        ("var/run/secrets/istio/root-cert.pem", root_certificate),
        ("var/run/secrets/tokens/istio-token", token),
        ("var/lib/istio/envoy/envoy_bootstrap_tmpl.json", template),
        ("etc/istio/config/mesh", mesh),
        ("etc/istio/pod/labels", labels),
    ] {
        let at = root.join(at);
        fs::create_dir_all(at.parent().unwrap_or(root))?;
        fs::write(at, text)?;
    }
    for folder in ["var/lib/istio/data", "etc/istio/proxy"] {
        fs::create_dir_all(root.join(folder))?;
    }
    give_to_proxy(root)
}

fn text(value: &Value) -> Result<String> {
    value.as_str().map(str::to_owned).context("there is none")
}

/// Environment that injection, or a gateway's chart, writes into the container.
fn environment(root: &Path, cluster: &Real, host: Host, role: Role, named: Named<'_>) -> Vec<(String, String)> {
    let envoy = root.join("envoy").display().to_string();
    let view = if role == Role::Gateway { named.network } else { "" };
    let pairs = [
        ("POD_NAME", host.to_string()),
        ("POD_NAMESPACE", role.namespace().to_owned()),
        ("INSTANCE_IP", host.ipv4().to_string()),
        ("SERVICE_ACCOUNT", named.account.to_owned()),
        ("TRUST_DOMAIN", "cluster.local".to_owned()),
        ("PILOT_CERT_PROVIDER", "istiod".to_owned()),
        ("CA_ADDR", "istiod.istio-system.svc:15012".to_owned()),
        ("ISTIO_META_CLUSTER_ID", cluster.id().to_owned()),
        ("ISTIO_META_NETWORK", named.network.to_owned()),
        ("ISTIO_META_REQUESTED_NETWORK_VIEW", view.to_owned()),
        ("ISTIO_META_MESH_ID", "cluster.local".to_owned()),
        ("ISTIO_META_INTERCEPTION_MODE", "REDIRECT".to_owned()),
        ("ISTIO_META_WORKLOAD_NAME", host.to_string()),
        ("ISTIO_META_DNS_CAPTURE", "true".to_owned()),
        (
            "PROXY_CONFIG",
            // Istio's own metrics need Istio's Envoy.
            format!(
                "{{binaryPath: {envoy}, concurrency: 1, proxyStatsMatcher: {{inclusionPrefixes: [cluster.outbound]}}}}"
            ),
        ),
    ];
    let set = pairs.into_iter().filter(|(_, value)| !value.is_empty());
    set.map(|(key, value)| (key.to_owned(), value)).collect()
}
