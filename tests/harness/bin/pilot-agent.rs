//! Stands in for Istio's own agent, where Istio's programs are not at hand: puts in what it puts in in TPROXY mode,
//! holds its ports and files, and takes nothing back, as an agent that was killed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

/// Recorded from istio-iptables; both families.
const RULES: &str = include_str!("../../../agent/tests/golden/iptables/tproxy.golden");
const ROUTES: [&str; 4] = [
    "-4 rule add fwmark 1337 lookup 133",
    "-6 rule add fwmark 1337 lookup 133",
    "-4 route replace local default dev lo table 133",
    "-6 route replace local default dev lo table 133",
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["istio-iptables"] => redirect(),
        ["istio-iptables", "--cleanup-only"] => Ok(()),
        ["proxy", ..] => proxy(),
        ["-c", _] => park(),
        other => bail!("not like Istio's agent: {other:?}"),
    }
}

fn proxy() -> Result<()> {
    for (path, text) in [
        ("/etc/certs/key.pem", "a key\n"),
        ("/etc/certs/cert-chain.pem", "a chain\n"),
        ("/etc/istio/proxy/envoy-rev.json", "{}\n"),
        ("/etc/istio/proxy/XDS", ""),
        ("/var/run/secrets/workload-spiffe-uds/socket", ""),
    ] {
        let (folder, _) = path.rsplit_once('/').context("no folder")?;
        fs::create_dir_all(folder)?;
        fs::write(path, text).with_context(|| path.to_owned())?;
        if path.ends_with("key.pem") {
            // As Istio's own agent leaves it.
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    let _tcp: Vec<TcpListener> = [15001, 15006, 15020, 15021, 15090]
        .map(|port| TcpListener::bind(("0.0.0.0", port)).with_context(|| format!("port {port}")))
        .into_iter()
        .collect::<Result<_>>()?;
    let _dns = UdpSocket::bind("127.0.0.1:15053").context("port 15053")?;
    let mut envoy = Command::new("/proc/self/exe");
    envoy
        .arg0("/usr/local/bin/envoy")
        .args(["-c", "etc/istio/proxy/envoy-rev.json"]);
    envoy.spawn()?;
    park()
}

fn park() -> ! {
    loop {
        std::thread::park();
    }
}

fn redirect() -> Result<()> {
    // What the real one ends up with where both variants are installed: its own look at the legacy one makes a table
    // there, and a variant that has tables is the one that it takes.
    let variants = ["iptables-legacy-restore", "ip6tables-legacy-restore"];
    for (family, rules) in variants.into_iter().zip(families()) {
        let mut restore = Command::new(family).arg("--noflush").stdin(Stdio::piped()).spawn()?;
        restore.stdin.take().context("no stdin")?.write_all(rules.as_bytes())?;
        let status = restore.wait()?;
        ensure!(status.success(), "{family}: {status}");
    }
    for line in ROUTES {
        let status = Command::new("ip").args(line.split(' ')).status()?;
        ensure!(status.success(), "ip {line}: {status}");
    }
    Ok(())
}

/// A table that comes again is the other family's.
fn families() -> [String; 2] {
    let mut families = [String::new(), String::new()];
    let mut seen = BTreeSet::new();
    let mut family = 0;
    for line in RULES.lines().filter(|line| !line.ends_with("-save")) {
        if let Some(table) = line.strip_prefix('*') {
            family = usize::from(family == 1 || !seen.insert(table.trim()));
        }
        families[family] += &format!("{}\n", line.replace("* ", "*"));
    }
    families
}
