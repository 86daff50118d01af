//! `explain` names the cause of faults that are there for real, one after the other in one mesh, and `proxy` shows what
//! Envoy has.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::istiod::{Misconfiguration, PeerAuthentication};
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::vm::Settings;
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use rustix::process::{Signal, kill_process};
use serde_json::Value;

use crate::{both, note, stand_in_only};

const CART: &str = "cartservice.onlineboutique:7070";
const CATALOG: &str = ":3550";

pub(crate) fn trials() -> Vec<Trial> {
    let by_mesh = || with_mesh(e2e::mesh::Kind::StandIn, Settings::default(), faults_of_the_mesh);
    let mut trials = Vec::from(both(
        "explain names faults of the VM, and proxy shows what Envoy has",
        |kind| with_mesh(kind, Settings::default(), faults_of_the_vm),
    ));
    trials.push(stand_in_only(
        "explain names faults of the mesh's configuration",
        by_mesh,
    ));
    trials
}

fn faults_of_the_mesh(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    well(mesh)?;
    let istiod = mesh.control_plane.stand_in()?;
    let put_in = |misconfiguration, target, cause| {
        istiod.set_misconfiguration(Some(misconfiguration));
        named(mesh, &[target], cause)?;
        istiod.set_misconfiguration(None);
        well(mesh)
    };
    put_in(Misconfiguration::NoEndpoint, CART, "no-endpoint")?;
    put_in(Misconfiguration::DirectResponse, CART, "direct-response")?;
    put_in(Misconfiguration::Redirect, CART, "redirect")?;
    put_in(Misconfiguration::Abort, CART, "fault-abort")?;
    put_in(Misconfiguration::NoSubset, CART, "no-cluster")?;
    put_in(Misconfiguration::DenyAll, CATALOG, "rbac-denied")?;
    istiod.set_istio_filters(true);
    named(mesh, &[CART], "nack")?;
    istiod.set_istio_filters(false);
    well(mesh)?;
    istiod.set_peer_authentication(PeerAuthentication::Strict);
    named(mesh, &[CATALOG, "--plaintext"], "strict-plaintext")?;
    named(mesh, &[&format!("{}->:3550", Host::Outside.ipv4())], "strict-plaintext")?;
    istiod.set_peer_authentication(PeerAuthentication::Permissive);
    well(mesh)
}

fn faults_of_the_vm(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    well(mesh)?;
    shown(mesh)?;
    named(mesh, &["cartsevice.onlineboutique:7070"], "unknown-name")?;
    named(mesh, &["cartservice.onlineboutique:7071"], "wrong-port")?;
    // Only here is the Service's address known beforehand.
    if mesh.control_plane.stand_in().is_ok() {
        named(mesh, &["10.96.118.236:7070", "--uid", "1337"], "excluded-owner")?;
    }
    named(mesh, &[":3551"], "port-not-captured")?;
    hosts_file(mesh)?;
    firewall(mesh)?;
    excluded_network(mesh)?;

    mesh.vm.signal_application(Signal::STOP)?;
    named(mesh, &[CATALOG], "probe-failing")?;
    mesh.vm.signal_application(Signal::KILL)?;
    named(mesh, &[CATALOG], "not-listening")?;
    mesh.vm.start_application(&mesh.network)?;
    well(mesh)?;

    // An agent that runs mends its rules and Envoy before anybody could ask.
    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    agent.signal(Signal::STOP)?;
    let chain = ["flush", "chain", "inet", "istio_vm_agent", "istio_output"];
    mesh.network.run(Host::Vm, "nft", &chain)?;
    named(mesh, &[CART], "rules-differ")?;
    mesh.network
        .run(Host::Vm, "nft", &["delete", "table", "inet", "istio_vm_agent"])?;
    named(mesh, &[CART], "agent-down")?;
    agent.signal(Signal::CONT)?;
    well(mesh)?;
    agent.kill()?;
    named(mesh, &[CART], "dns-down")?;
    kill_process(envoy, Signal::KILL)?;
    named(mesh, &[CATALOG], "envoy-down")
}

/// Another address in /etc/hosts than the mesh's.
fn hosts_file(mesh: &Mesh) -> Result<()> {
    let file = mesh.network.hosts_file(Host::Vm, EtcView::Plain);
    let before = fs::read_to_string(&file)?;
    fs::write(&file, format!("{before}10.9.9.9 cartservice.onlineboutique\n"))?;
    named(mesh, &[CART], "hosts-file")?;
    fs::write(&file, before)?;
    well(mesh)
}

/// A firewall that lets in the application's port alone.
fn firewall(mesh: &Mesh) -> Result<()> {
    let nft = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        mesh.network.run(Host::Vm, "nft", &words)
    };
    nft("add table inet firewall")?;
    nft("add chain inet firewall input { type filter hook input priority 0 ; policy drop ; }")?;
    nft("add rule inet firewall input iif lo accept")?;
    nft("add rule inet firewall input ct state established,related accept")?;
    nft("add rule inet firewall input tcp dport 3550 accept")?;
    named(mesh, &[CATALOG], "firewall")?;
    nft("delete table inet firewall")?;
    well(mesh)
}

/// A network that the bundle keeps from Envoy; the agent takes it up while it runs.
fn excluded_network(mesh: &Mesh) -> Result<()> {
    let file = mesh.vm.bundle().join("cluster.env");
    let before = fs::read_to_string(&file)?;
    fs::write(&file, format!("{before}ISTIO_SERVICE_EXCLUDE_CIDR='10.96.0.0/12'\n"))?;
    named(mesh, &[CART], "excluded-address")?;
    fs::write(&file, before)?;
    well(mesh)
}

/// No fault either way.
fn well(mesh: &Mesh) -> Result<()> {
    for target in [CART, CATALOG] {
        eventually(format!("{target} to be well"), PATIENCE, || {
            let (explained, _) = explained(mesh, &[target])?;
            ensure!(explained["decision"].is_null(), "{explained:#}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until this cause is the one that is named.
fn named(mesh: &Mesh, arguments: &[&str], cause: &str) -> Result<()> {
    let took = eventually(format!("{cause} of {arguments:?} to be named"), PATIENCE, || {
        let (explained, took) = explained(mesh, arguments)?;
        ensure!(explained["decision"]["cause"] == cause, "{explained:#}");
        Ok(took)
    })?;
    note(cause, &format!("named in {} ms", took.as_millis()));
    Ok(())
}

fn explained(mesh: &Mesh, arguments: &[&str]) -> Result<(Value, Duration)> {
    let arguments = [&["explain", "-o", "json"], arguments].concat();
    let start = Instant::now();
    let output = mesh.vm.agent(&mesh.network, &arguments)?;
    let took = start.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    let explained = serde_json::from_str(&text);
    let explained: Value = explained.with_context(|| format!("{text} {}", String::from_utf8_lossy(&output.stderr)))?;
    let is_fault = explained["decision"]["level"] == "fault";
    ensure!(
        output.status.code() == Some(is_fault.into()),
        "{:?}: {explained}",
        output.status
    );
    Ok((explained, took))
}

fn shown(mesh: &Mesh) -> Result<()> {
    for (arguments, words) in [
        (
            &["proxy", "clusters", "--fqdn", "cartservice"][..],
            "cartservice.onlineboutique.svc.cluster.local     7070",
        ),
        (&["proxy", "listeners", "--port", "15006"], "Cluster: inbound|3550||"),
        (
            &["proxy", "routes", "--name", "7070"],
            "cartservice.onlineboutique.svc.cluster.local:7070",
        ),
        (
            &["proxy", "endpoints", "--status", "healthy"],
            "OK                outbound|7070||cartservice",
        ),
        (&["proxy", "secrets"], "Cert Chain     ACTIVE     true"),
        (&["proxy", "stats", "--filter", "^server.state$"], "server.state: 0"),
        (&["proxy", "log", "--level", "http:debug"], "http: debug"),
        (&["proxy", "config", "-o", "json"], "ListenersConfigDump"),
    ] {
        let output = mesh.vm.agent(&mesh.network, arguments)?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && text.contains(words),
            "{arguments:?}: {output:?}"
        );
        ensure!(!text.contains("PRIVATE KEY"), "{arguments:?} shows a key");
    }
    Ok(())
}
