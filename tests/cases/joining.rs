//! Joining with no copied file: a real API server with RBAC, the Role that `manifests` prints, and no bundle.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::istiod::Authenticated;
use e2e::kubernetes::{Cluster, GOOGLE_SERVICE_ACCOUNT, MESH};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::Settings;
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;

use crate::stand_in_only;

type Case = fn(&mut Mesh) -> Result<()>;

pub(crate) fn trials() -> Vec<Trial> {
    let cases: [(&str, Case); 4] = [
        ("join.kubernetes with the printed Role alone: the VM serves", serves),
        (
            "join.kubernetes beside join.directory: what a first join takes",
            compares,
        ),
        (
            "join.kubernetes after 30 days off, with all expired: it joins again alone",
            joins_again,
        ),
        (
            "join.kubernetes with a wrong clock: it is named, whoever notices it",
            names_its_clock,
        ),
    ];
    cases
        .into_iter()
        .map(|(name, case)| stand_in_only(name, move || with_mesh(Kind::StandIn, settings(), case)))
        .collect()
}

/// The group's probe is made of the VM's.
fn settings() -> Settings {
    Settings {
        more: "[health.probe]\ngrpc = { port = 3550 }\nperiod = \"1s\"\n".to_owned(),
        ..Settings::default()
    }
}

fn serves(mesh: &mut Mesh) -> Result<()> {
    let _cluster = without_a_bundle(mesh)?;
    let agent = mesh.join()?;
    let calls = mesh.expect_calls()?;
    calls.expect_caller(e2e::pod::SPIFFE_ID)?;
    let (status, _) = mesh.vm.status(&mesh.network)?;
    let by = status["identity"]["proven"]["by"].as_str().unwrap_or_default();
    ensure!(by.starts_with("a token from the API server https://"), "{status}");
    let check = mesh.vm.agent(&mesh.network, &["check"])?;
    let found = String::from_utf8_lossy(&check.stdout);
    ensure!(found.contains("asked for at every need, from"), "check: {found}");
    // Whatever it keeps of what the cluster said, no token is in it.
    let kept = fs::read_to_string(mesh.vm.state_folder().join("membership.json"))?;
    ensure!(!kept.contains("eyJ"), "a token is kept");
    drop(agent);
    Ok(())
}

/// First joins from either source in turns, on the same mesh.
fn compares(mesh: &mut Mesh) -> Result<()> {
    const ROUNDS: usize = 5;
    let from_files = fs::read_to_string(mesh.vm.config())?;
    let _cluster = without_a_bundle(mesh)?;
    mesh.write_bundle()?;
    let from_the_cluster = fs::read_to_string(mesh.vm.config())?;
    let mut took: [Vec<Duration>; 2] = Default::default();
    for _ in 0..ROUNDS {
        for (text, took) in [&from_files, &from_the_cluster].into_iter().zip(&mut took) {
            fs::write(mesh.vm.config(), text)?;
            took.push(first_join(mesh)?);
        }
    }
    let [files, cluster] = took.map(|mut took| {
        took.sort();
        took[ROUNDS / 2].as_secs_f64() * 1000.0
    });
    let ratio = cluster / files;
    let text = format!(
        "medians of {ROUNDS}: {files:.0} ms from files, {cluster:.0} ms from the API server, {ratio:.2} times that"
    );
    crate::note("start to ready", &text);
    Ok(())
}

/// From the start of the process until the VM serves. It leaves nothing behind.
fn first_join(mesh: &Mesh) -> Result<Duration> {
    let start = Instant::now();
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    agent.wait_until_ready(&mesh.network)?;
    let took = start.elapsed();
    agent.kill()?;
    let reverted = mesh.vm.agent(&mesh.network, &["revert"])?;
    ensure!(reverted.status.success(), "revert: {reverted:?}");
    fs::remove_dir_all(mesh.vm.state_folder())?;
    Ok(took)
}

/// Thirty days ago for the first join, and now for the second: what was issued then has expired since, and nothing on
/// the VM is of use but who it is. The API server stays at the real time and judges tokens by it.
fn joins_again(mesh: &mut Mesh) -> Result<()> {
    let _cluster = without_a_bundle(mesh)?;
    set_clocks(mesh, -30)?;
    let mut agent = mesh.join()?;
    agent.stop()?;
    let before = mesh.control_plane.stand_in()?.certificates().len();

    set_clocks(mesh, 0)?;
    let agent = mesh.join()?;
    let calls = mesh.control_plane.stand_in()?.certificates();
    let first = calls.get(before).context("no certificate was asked for")?;
    ensure!(first.by == Authenticated::Token, "{first:?}");
    let why = "the stored certificate is replaced: it is valid from";
    ensure!(agent.output().contains(why), "the log doesn't say why it asked");
    mesh.expect_calls().map(drop)
}

/// Of the VM and of istiod, in days from now; istiod is started again.
fn set_clocks(mesh: &mut Mesh, days_ahead: i64) -> Result<()> {
    mesh.vm.set_clock(days_ahead)?;
    mesh.control_plane.stand_in()?.set_clock(days_ahead);
    mesh.kill_istiod()?;
    mesh.start_istiod()
}

/// The VM's clock alone is wrong: by a month, which the certificates of clusters outlive, and by two years.
fn names_its_clock(mesh: &mut Mesh) -> Result<()> {
    let cluster = without_a_bundle(mesh)?;
    for (days, words) in [(-30, "is not valid yet"), (30, "has expired")] {
        mesh.vm.set_clock(days)?;
        let check = mesh.vm.agent(&mesh.network, &["check"])?;
        let found = String::from_utf8_lossy(&check.stdout);
        let is_found = found.contains("FAILED   IVA102  clock             this VM's clock says");
        ensure!(is_found && !check.status.success(), "check: {found}");
        let by_the_server = ["this VM's clock says", "the server's", "set the clock"];
        expect_lines(
            mesh,
            &[
                &by_the_server,
                &["istiod", words, "this VM's clock says", "set the clock"],
            ],
        )?;
    }
    for (days, words) in [(-800, "is not valid yet"), (800, "has expired")] {
        mesh.vm.set_clock(days)?;
        let server = cluster.address();
        expect_lines(
            mesh,
            &[&[
                "failed to join",
                &server,
                words,
                "this VM's clock says",
                "set the clock",
            ]],
        )?;
    }
    mesh.vm.set_clock(0)?;
    mesh.join().map(drop)
}

/// Starts an agent that has joined nothing yet, and waits until it has said each of these, with all of its parts in one line.
fn expect_lines(mesh: &Mesh, lines: &[&[&str]]) -> Result<()> {
    let _ = fs::remove_dir_all(mesh.vm.state_folder());
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    let before = agent.output().len();
    eventually(format!("{lines:?} to be said"), PATIENCE, || {
        let output = agent.output().split_off(before);
        let is_said = |parts: &&[&str]| output.lines().any(|line| parts.iter().all(|part| line.contains(part)));
        ensure!(lines.iter().all(is_said), "not yet");
        Ok(())
    })?;
    agent.kill()
}

/// A cluster in which the VM may do what the Role allows, and a configuration that names it; no bundle.
fn without_a_bundle(mesh: &Mesh) -> Result<Cluster> {
    let cluster = Cluster::start_for(&mesh.network, mesh.control_plane.stand_in()?)?;
    cluster.apply(MESH)?;
    cluster.publish_root("onlineboutique", &mesh.control_plane.stand_in()?.root_pem())?;
    let folder = mesh.network.folder();
    let (ca, token) = (folder.join("cluster-ca.pem"), folder.join("cluster-token"));
    fs::write(&ca, cluster.ca_pem())?;
    fs::write(&token, cluster.token(GOOGLE_SERVICE_ACCOUNT)?)?;
    let text = fs::read_to_string(mesh.vm.config())?;
    let (_, rest) = text
        .split_once("[network]")
        .context("the configuration has another shape")?;
    let join = format!(
        "[join.kubernetes]\nserver = {:?}\nca_file = {ca:?}\ntoken_file = {token:?}\n\
         namespace = \"onlineboutique\"\nworkload_group = \"productcatalog\"\n",
        cluster.address()
    );
    fs::write(mesh.vm.config(), format!("{join}[network]{rest}"))?;
    fs::remove_dir_all(mesh.vm.bundle())?;
    cluster.apply(&manifests(mesh)?)?;
    Ok(cluster)
}

fn manifests(mesh: &Mesh) -> Result<String> {
    let options = [
        "manifests",
        "--namespace",
        "onlineboutique",
        "--workload-group",
        "productcatalog",
        "--port",
        "grpc:3550",
        "--google-service-account",
        GOOGLE_SERVICE_ACCOUNT,
    ];
    let output = mesh.vm.agent(&mesh.network, &options)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "manifests said {errors}");
    Ok(String::from_utf8(output.stdout)?)
}
