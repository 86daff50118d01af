//! etcd and kube-apiserver: their files and their command lines.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::Result;
use rcgen::KeyPair;

use super::{PORT, USERS, token_of};
use crate::network::{EtcView, Host, Network};
use crate::pki::Pki;
use crate::process::Process;
use crate::programs;

/// Only for the API server, on its own host's loopback.
const ETCD: &str = "http://127.0.0.1:2379";

pub(super) fn start_etcd(host: Host, network: &Network, folder: &Path) -> Result<Process> {
    let data = folder.join("etcd").to_string_lossy().into_owned();
    let mut args = vec!["--data-dir", &data];
    args.extend(["--listen-client-urls", ETCD, "--advertise-client-urls", ETCD]);
    args.extend(["--listen-peer-urls", "http://127.0.0.1:2380", "--unsafe-no-fsync"]);
    network.spawn(host, "etcd", "etcd", &args)
}

/// `signing`: makes the tokens of service accounts.
pub(super) fn start_apiserver(
    host: Host,
    network: &Network,
    folder: &Path,
    pki: &Pki,
    signing: &KeyPair,
) -> Result<Process> {
    let address = host.ipv4().to_string();
    let names = [&address, "127.0.0.1", "10.96.0.1", "kubernetes.default.svc"];
    let serving = pki.issue_for_names_long_ago(&names);
    let mut tokens = String::new();
    for (user, groups) in USERS {
        writeln!(tokens, "{},{user},{user},\"{groups}\"", token_of(user))?;
    }
    let files = [
        ("ca.crt", pki.root_pem()),
        ("tls.crt", serving.certificate),
        ("tls.key", serving.key),
        ("sa.key", signing.serialize_pem()),
        ("sa.pub", signing.public_key_pem()),
        ("tokens.csv", tokens),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text)?;
    }
    spawn_apiserver(host, network, folder)
}

/// In `folder`, whose files exist.
pub(super) fn spawn_apiserver(host: Host, network: &Network, folder: &Path) -> Result<Process> {
    let mut command = network.command(host, EtcView::Plain, programs::kube_apiserver()?);
    command.arg(format!("--etcd-servers={ETCD}"));
    command.arg(format!("--secure-port={PORT}"));
    command.arg(format!("--advertise-address={}", host.ipv4()));
    command.args(["--tls-cert-file=tls.crt", "--tls-private-key-file=tls.key"]);
    command.args(["--client-ca-file=ca.crt", "--token-auth-file=tokens.csv"]);
    command.args([
        "--service-account-key-file=sa.pub",
        "--service-account-signing-key-file=sa.key",
    ]);
    command.args([
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=RBAC",
    ]);
    command.arg(format!("--service-cluster-ip-range={}0.0/16", service_range(host)));
    // It waits for what a controller manager would make.
    command.arg("--disable-admission-plugins=ServiceAccount");
    command.current_dir(folder);
    Process::spawn(&format!("apiserver@{host}"), command, network.folder())
}

/// The beginning of the addresses of Services. Of two clusters whose services one proxy knows, each has its own.
pub(crate) fn service_range(host: Host) -> &'static str {
    if host == Host::SecondControlPlane {
        "10.97."
    } else {
        "10.96."
    }
}
