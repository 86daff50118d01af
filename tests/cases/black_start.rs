//! A VM that boots while istiod, and all else that it learned the mesh from, is dead.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::Host;
use e2e::process::resident;
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{both, note};

pub(crate) fn trials() -> Vec<Trial> {
    let in_a_container = || Settings {
        application: Application::Container,
        ..Settings::default()
    };
    let [stand_in, real] = both(
        "a VM boots while istiod is dead: it serves both ways, and none fails when istiod is back",
        move |kind| with_mesh(kind, in_a_container(), boots_without_istiod),
    );
    let [damaged, real_damaged] = both(
        "a VM boots while istiod is dead, with a damaged snapshot: it is named, and nothing is served",
        |kind| with_mesh(kind, Settings::default(), boots_with_a_damaged_snapshot),
    );
    vec![stand_in, real, damaged, real_damaged]
}

/// The nameserver of the VM's resolv.conf is never there.
fn boots_without_istiod(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    crate::calls::both_ways(mesh)?;
    let size = mesh.vm.await_snapshot()?;
    note("the snapshot, in bytes", &size.to_string());
    mesh.kill_istiod()?;
    mesh.vm.power_cycle(&mesh.network, &mut agent)?;

    let boot = Instant::now();
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    agent.wait_until_ready(&mesh.network)?;
    note("ready after a boot without istiod", &format!("{:.2?}", boot.elapsed()));
    crate::calls::both_ways(mesh)?;
    expect_names(mesh)?;
    let status = status_once(mesh, |xds| xds["snapshot"].is_object())?;
    ensure!(status["health"]["ready"] == true, "{status}");
    ensure!(
        status["xds"]["snapshot"]["until"] == status["identity"]["not_after"],
        "{status}"
    );
    note(
        "resident memory of the agent, in bytes",
        &resident(agent.pid(), "VmRSS")?.to_string(),
    );

    let listeners = listeners(mesh)?;
    let calling = mesh.start_calls(200)?;
    calling.wait_for(2.0)?;
    mesh.start_istiod()?;
    status_once(mesh, |xds| xds["connected_to"].is_string() && xds["snapshot"].is_null())?;
    mesh.wait_until_healthy(true)?;
    calling.wait_for(calling.so_far().last() + 3.0)?;
    calling.stop()?.expect_all_answered()?;
    ensure!(self::listeners(mesh)? == listeners, "listeners were made anew");
    crate::calls::both_ways(mesh)
}

fn boots_with_a_damaged_snapshot(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    mesh.vm.await_snapshot()?;
    mesh.kill_istiod()?;
    mesh.vm.power_cycle(&mesh.network, &mut agent)?;
    let file = mesh.vm.state_folder().join("xds.snapshot");
    let mut bytes = fs::read(&file)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes)?;

    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    let status = status_once(mesh, |xds| {
        xds["snapshot_problem"].is_string() && xds["last_error"].is_string()
    })?;
    let problem = status["xds"]["snapshot_problem"].as_str().unwrap_or_default();
    ensure!(
        problem.contains("xds.snapshot is not used") && problem.contains("damaged"),
        "{problem}"
    );
    ensure!(
        status["health"]["ready"] == false && status["xds"]["snapshot"].is_null(),
        "{status}"
    );
    mesh.start_istiod()?;
    agent.wait_until_ready(&mesh.network)?;
    status_once(mesh, |xds| xds["snapshot_problem"].is_null()).map(drop)
}

/// Names of the mesh are answered on the VM.
fn expect_names(mesh: &Mesh) -> Result<()> {
    let answer = mesh.network.run(
        Host::Vm,
        "getent",
        &["ahostsv4", "cartservice.onlineboutique.svc.cluster.local"],
    )?;
    ensure!(answer.contains("STREAM"), "{answer}");
    Ok(())
}

/// `status` once its section of the control plane is as wanted.
fn status_once(mesh: &Mesh, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    eventually("status to say so", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(wanted(&status["xds"]), "{status}");
        Ok(status)
    })
}

/// Envoy's listeners as they are, each with the time at which it was made.
fn listeners(mesh: &Mesh) -> Result<Vec<String>> {
    let mut admin = UnixStream::connect(mesh.vm.run_folder().join("envoy/admin.sock"))?;
    admin.set_read_timeout(Some(Duration::from_secs(5)))?;
    let path = "/config_dump?resource=dynamic_listeners";
    write!(
        admin,
        "GET {path} HTTP/1.1\r\nHost: admin\r\nConnection: close\r\nAccept-Encoding: identity\r\n\r\n"
    )?;
    let mut answer = String::new();
    admin.read_to_string(&mut answer)?;
    let dump = &answer[answer.find('{').context("no JSON")?..=answer.rfind('}').context("no JSON")?];
    let dump: Value = serde_json::from_str(dump).with_context(|| answer.clone())?;
    let listeners = dump["configs"].as_array().context("no listeners")?.iter();
    let mut listeners: Vec<String> = listeners
        .map(|one| {
            format!(
                "{} {}",
                one["active_state"]["last_updated"], one["active_state"]["listener"]
            )
        })
        .collect();
    ensure!(!listeners.is_empty(), "{dump}");
    listeners.sort();
    Ok(listeners)
}
