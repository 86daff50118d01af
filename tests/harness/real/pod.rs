//! A pod of the real mesh: the application behind Istio's own pilot-agent and its rules, joined as WorkloadGroup
//! cartservice. And pilot-agent by itself, to join another host.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::Real;
use crate::network::{EtcView, Host, Network};
use crate::pod::CART_PORT;
use crate::process::{Process, output_of};
use crate::{PATIENCE, eventually, http, programs};

/// Istio's.
pub(super) const PROXY: &str = "1337";

/// pilot-agent and an application.
#[derive(Debug)]
pub struct RealPod {
    _agent: PilotAgent,
    _application: Process,
}

impl RealPod {
    /// Joins it, and waits until it serves.
    pub fn start(network: &Network, cluster: &Real) -> Result<Self> {
        let port = CART_PORT.to_string();
        let application = network.spawn(Host::Pod, "cart", programs::productcatalog()?, &["--port", &port])?;
        let bundle = network.folder().join("pod-bundle");
        cluster.bundle(network, "cartservice", &bundle)?;
        Ok(Self {
            _agent: PilotAgent::start(network, Host::Pod, &bundle)?,
            _application: application,
        })
    }
}

/// Istio's own agent, with its Envoy and its rules.
#[derive(Debug)]
pub struct PilotAgent {
    started: Instant,
    rules_took: Duration,
    environment: Vec<(String, String)>,
    _process: Process,
}

impl PilotAgent {
    /// Joins `host` with what istioctl made for it, and waits until it serves.
    pub fn start(network: &Network, host: Host, bundle: &Path) -> Result<Self> {
        let lab = programs::lab().context("LAB_BIN is not set")?;
        let root = network.folder().join(format!("pilot-agent-{host}"));
        lay_out(&root, bundle, &lab)?;
        let hosts = network.hosts_file(host, EtcView::Plain);
        fs::write(
            &hosts,
            fs::read_to_string(&hosts)? + &fs::read_to_string(bundle.join("hosts"))? + "\n",
        )?;

        let program = lab.join("pilot-agent");
        let environment = environment(&root, host)?;
        let mut rules = network.command(host, EtcView::Plain, &program);
        rules.arg("istio-iptables").envs(environment.clone()).current_dir(&root);
        let began = Instant::now();
        output_of(rules)?;
        let rules_took = began.elapsed();
        let mut proxy = network.command(host, EtcView::Plain, "setpriv");
        proxy.args(["--reuid", PROXY, "--regid", PROXY, "--clear-groups", "sh", "-c"]);
        // Envoy re-opens /dev/stdout, which as its own user it can do with a pipe only.
        proxy.arg(r#""$0" proxy 2>&1 | cat"#).arg(&program);
        proxy.envs(environment.clone()).current_dir(&root);
        let started = Instant::now();
        let mut process = Process::spawn(&format!("pilot-agent@{host}"), proxy, network.folder())?;
        eventually(format!("pilot-agent on {host}"), PATIENCE, || {
            process.check_alive()?;
            let (code, body) = http::get(network, host, 15021, "/healthz/ready")?;
            ensure!(code == 200, "{code}: {body}");
            Ok(())
        })?;
        Ok(Self {
            started,
            rules_took,
            environment,
            _process: process,
        })
    }

    /// Time that the pod's rules took, before it was started.
    pub fn rules_took(&self) -> Duration {
        self.rules_took
    }

    /// Takes its rules out; how long that took.
    pub fn remove_rules(&self, network: &Network, host: Host) -> Result<Duration> {
        let program = programs::lab().context("LAB_BIN is not set")?.join("pilot-agent");
        let mut rules = network.command(host, EtcView::Plain, program);
        rules
            .args(["istio-iptables", "--cleanup-only"])
            .envs(self.environment.clone());
        let began = Instant::now();
        output_of(rules)?;
        Ok(began.elapsed())
    }

    /// When its process was started; its rules were in by then.
    pub fn started(&self) -> Instant {
        self.started
    }
}

/// The folders that pilot-agent looks into, from its working directory.
fn lay_out(root: &Path, bundle: &Path, lab: &Path) -> Result<()> {
    let files = [
        (bundle.join("cluster.env"), "var/lib/istio/envoy/cluster.env"),
        (bundle.join("mesh.yaml"), "etc/istio/config/mesh"),
        (bundle.join("istio-token"), "var/run/secrets/tokens/istio-token"),
        (bundle.join("root-cert.pem"), "etc/certs/root-cert.pem"),
        (
            lab.join("envoy_bootstrap.json"),
            "var/lib/istio/envoy/envoy_bootstrap_tmpl.json",
        ),
    ];
    for (from, to) in files {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap_or(root))?;
        fs::copy(&from, &to).with_context(|| format!("failed to copy {}", from.display()))?;
    }
    fs::create_dir_all(root.join("etc/istio/proxy"))?;
    give_to_proxy(root)
}

/// Puts Envoy beside pilot-agent's files, and makes all of it the proxy's.
pub(super) fn give_to_proxy(root: &Path) -> Result<()> {
    programs::install_envoy(&root.join("envoy"))?;
    let mut folders = Command::new("chown");
    folders
        .args(["--recursive", PROXY])
        .arg(root.join("etc"))
        .arg(root.join("var"));
    output_of(folders)?;
    // Without what is in it: Envoy's program may be a link to the machine's own, which is to stay root's.
    let mut own = Command::new("chown");
    own.arg(PROXY).arg(root);
    output_of(own).map(drop)
}

/// cluster.env, and what istio-start.sh adds to it.
fn environment(root: &Path, host: Host) -> Result<Vec<(String, String)>> {
    let text = fs::read_to_string(root.join("var/lib/istio/envoy/cluster.env"))?;
    let lines = text.lines().filter_map(|line| line.split_once('='));
    let mut pairs: Vec<(String, String)> = lines
        .map(|(key, value)| (key.to_owned(), value.trim_matches('\'').to_owned()))
        .collect();
    let envoy = root.join("envoy").display().to_string();
    let more = [
        ("INSTANCE_IP", host.ipv4().to_string()),
        ("POD_NAME", host.to_string()),
        ("PROV_CERT", "./etc/certs".to_owned()),
        ("OUTPUT_CERTS", "./etc/certs".to_owned()),
        ("CA_ADDR", "istiod.istio-system.svc:15012".to_owned()),
        (
            "PROXY_CONFIG",
            format!("binaryPath: {envoy}\ncontrolPlaneAuthPolicy: MUTUAL_TLS\nconcurrency: 1\n"),
        ),
    ];
    pairs.extend(more.map(|(key, value)| (key.to_owned(), value)));
    Ok(pairs)
}
