//! `check` on a VM that is ill: it ends whatever hangs, goes on whatever fails, and asks again when it is told to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;

use anyhow::{Result, ensure};
use e2e::istiod::{Fault, Service};
use e2e::mesh::Mesh;
use e2e::{PATIENCE, eventually};
use serde_json::Value;

use super::finding;

/// Of those that it always has something to say about.
const LEAST: usize = 38;

/// A dockerd that says nothing, an Envoy that never ends, a CA that never signs.
pub(super) fn hangs(mesh: &mut Mesh) -> Result<()> {
    let socket = mesh.vm.bundle().with_extension("docker");
    let _silent = UnixListener::bind(&socket)?;
    let container = format!("[workload.container]\nname = \"web\"\nimage = \"web:1\"\ndocker_socket = {socket:?}\n");
    let config = fs::read_to_string(mesh.vm.config())?;
    fs::write(mesh.vm.config(), config + &container)?;
    // It is a link to the one that others run.
    fs::remove_file(mesh.vm.envoy())?;
    fs::write(mesh.vm.envoy(), "#!/bin/sh\nexec sleep 600\n")?;
    fs::set_permissions(mesh.vm.envoy(), fs::Permissions::from_mode(0o755))?;
    mesh.control_plane.stand_in()?.set_fault(Service::Ca, Some(Fault::Hang));

    let findings = super::check(mesh, 1)?;
    for name in ["docker", "envoy", "CA's signature"] {
        let (level, detail) = finding(&findings, name)?;
        ensure!(level == "failed", "{name} is {level}: {detail}");
    }
    for name in ["control plane", "interception", "token"] {
        let (level, detail) = finding(&findings, name)?;
        ensure!(level == "ok", "{name} is {level}: {detail}");
    }
    expect_all(&findings)
}

/// A bundle that is cut short is exit 78 as ever; all else is told nevertheless.
pub(super) fn goes_on(mesh: &mut Mesh) -> Result<()> {
    fs::remove_file(mesh.vm.bundle().join("cluster.env"))?;
    let output = mesh.vm.agent(&mesh.network, &["check", "--output", "json"])?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(super::CONFIG), "check: {output:?}");
    ensure!(errors.contains("cluster.env"), "stderr: {errors}");
    let findings = super::findings(&output)?;
    for (name, wanted) in [
        ("configuration", "ok"),
        ("join", "failed"),
        ("privileges", "ok"),
        ("ports", "ok"),
        ("control plane", "skipped"),
        ("interception", "skipped"),
    ] {
        let (level, detail) = finding(&findings, name)?;
        ensure!(level == wanted, "{name} is {level}: {detail}");
    }
    expect_all(&findings)
}

/// Each check has the CA sign once and no more, and `--only` asks nothing that it is not told to.
pub(super) fn asks_for_one_certificate(mesh: &mut Mesh) -> Result<()> {
    let signed = |mesh: &Mesh| anyhow::Ok(mesh.control_plane.stand_in()?.certificates().len());
    super::check(mesh, 0)?;
    ensure!(signed(mesh)? == 1, "the CA signed {} certificates", signed(mesh)?);
    let output = mesh
        .vm
        .agent(&mesh.network, &["check", "--only", "IVA301,names", "--output", "json"])?;
    let findings = super::findings(&output)?;
    let codes: Vec<&str> = findings
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| it["code"].as_str())
        .collect();
    ensure!(codes == ["IVA301", "IVA701", "IVA702", "IVA703", "IVA704"], "{codes:?}");
    ensure!(signed(mesh)? == 1, "the CA was asked");
    let unknown = mesh.vm.agent(&mesh.network, &["check", "--only", "IVA999"])?;
    ensure!(unknown.status.code() == Some(super::USAGE), "{unknown:?}");
    Ok(())
}

/// The bundle comes while `check` waits for it; and one that never does ends the wait.
pub(super) fn waits(mesh: &mut Mesh) -> Result<()> {
    let root = mesh.vm.bundle().join("root-cert.pem");
    let away = root.with_extension("away");
    fs::rename(&root, &away)?;
    let ended = mesh.vm.agent(&mesh.network, &["check", "--wait=1s"])?;
    ensure!(ended.status.code() == Some(super::CONFIG), "{ended:?}");
    // Each round runs Envoy; the first one is over when the second begins.
    let (real, rounds) = (
        mesh.vm.envoy().with_extension("real"),
        mesh.vm.envoy().with_extension("rounds"),
    );
    fs::rename(mesh.vm.envoy(), &real)?;
    let script = format!(
        "#!/bin/sh\necho >>{}\nexec {} \"$@\"\n",
        rounds.display(),
        real.display()
    );
    fs::write(mesh.vm.envoy(), script)?;
    fs::write(&rounds, "")?;
    for (file, mode) in [(mesh.vm.envoy(), 0o755), (rounds.clone(), 0o666)] {
        fs::set_permissions(file, fs::Permissions::from_mode(mode))?;
    }
    let ended = std::thread::scope(|scope| {
        let (vm, network) = (&mesh.vm, &mesh.network);
        let waiting = scope.spawn(move || vm.agent(network, &["check", "--wait=60s", "--only", "IVA202,IVA501"]));
        eventually("the first round", PATIENCE, || {
            ensure!(fs::metadata(&rounds)?.len() > 0, "Envoy was not asked yet");
            Ok(())
        })?;
        fs::rename(&away, &root)?;
        waiting.join().map_err(|_| anyhow::anyhow!("the check panicked"))?
    })?;
    ensure!(ended.status.success(), "{ended:?}");
    Ok(())
}

fn expect_all(findings: &Value) -> Result<()> {
    let found = findings.as_array().map_or(0, Vec::len);
    ensure!(found >= LEAST, "{found} findings: {findings}");
    Ok(())
}
