//! Other versions of the package over the installed one, under calls.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;
use e2e::programs;
use serde_json::{Value, json};

use super::steps::*;

/// An agent that ends at its start.
const ENDS: &str = "#!/bin/sh\nif [ \"$1\" = run ]; then exit 1; fi\n";
/// An agent that does nothing.
const HANGS: &str = "#!/bin/sh\nif [ \"$1\" = run ]; then sleep 1000; fi\n";
/// Where the version before is kept while an upgrade is on trial.
const FORMER: &str = "/usr/lib/istio-vm-agent/former/istio-vm-agent";

pub(super) fn under_load(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    join(mesh, vm)?;
    let envoy = vm.property(ENVOY, "MainPID")?;
    let calling = mesh.start_calls(200)?;
    upgrade(vm, "9.0")?;
    // Back to where it came from: to an older version. One that runs though nobody enabled it changes as well.
    vm.run(&["systemctl", "disable", AGENT])?;
    let before = vm.property(AGENT, "MainPID")?;
    vm.run(&["dpkg", "--install", PACKAGE])?;
    expect_another(vm, AGENT, &before)?;
    calling.stop()?.expect_all_answered()?;
    ensure!(vm.property(ENVOY, "MainPID")? == envoy, "it is not the Envoy of before");
    Ok(())
}

/// Versions that don't serve go by themselves, whatever comes between; the next good one stays.
pub(super) fn rolled_back(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    join(mesh, vm)?;
    let calling = mesh.start_calls(200)?;
    let said = install_broken(vm, "9.1", ENDS)?;
    ensure!(
        said.contains("the agent of this version is not ready; traffic goes on as it was")
            && said.contains("the version before comes back by itself"),
        "an agent that does not get ready is not told of: {said}"
    );
    expect_rolled_back(vm, "9.1", "died 3 times")?;
    install_broken(vm, "9.2", HANGS)?;
    expect_rolled_back(vm, "9.2", "said nothing")?;
    // As the remedy says, once Envoy, which had no agent for some seconds, is connected again.
    e2e::eventually("the remedy of a roll-back", e2e::PATIENCE, || {
        let remedy = status(vm)?["health"]["remedy"].to_string();
        ensure!(remedy.contains("install a version that serves"), "{remedy}");
        Ok(())
    })?;
    upgrade(vm, "9.3")?;
    let after = status(vm)?;
    ensure!(after["upgrade"]["state"] == "trial", "9.3 is not on trial");
    ensure!(
        !after["health"]["codes"].to_string().contains("upgrade-rolled-back"),
        "{after}"
    );
    calling.stop()?.expect_all_answered()?;

    install_broken(vm, "9.4", ENDS)?;
    vm.cut_power()?;
    vm.boot()?;
    expect_rolled_back(vm, "9.4", "died 3 times")?;
    expect_calls(mesh)?;
    vm.run(&["apt-get", "purge", "--yes", "istio-vm-agent"])?;
    ensure!(!vm.path(FORMER).exists(), "a purge leaves {FORMER}");
    Ok(())
}

/// Waits until the version before serves, and says why it does.
fn expect_rolled_back(vm: &Booted, version: &str, why: &str) -> Result<()> {
    e2e::eventually(format!("{version} to be rolled back"), e2e::PATIENCE, || {
        let status = status(vm)?;
        let told = &status["upgrade"];
        ensure!(
            told["state"] == "rolled-back" && told["to"] == *version && told["reason"].to_string().contains(why),
            "{told}"
        );
        let health = &status["health"];
        ensure!(
            health["ready"] == json!(true) && health["codes"].to_string().contains("upgrade-rolled-back"),
            "{health}"
        );
        Ok(())
    })?;
    ensure!(
        fs::read(vm.path("/usr/bin/istio-vm-agent"))? == fs::read(vm.path(FORMER))?,
        "the installed program is another one"
    );
    let journal = vm.run(&["journalctl", "--no-pager", "--unit", "istio-vm-agent-upgrade.service"])?;
    let line = journal
        .lines()
        .find(|line| line.contains("rolled back") && line.contains(version));
    line.map(drop)
        .with_context(|| format!("the journal does not say that {version} is rolled back: {journal}"))
}

fn status(vm: &Booted) -> Result<Value> {
    let output = vm.command(&["istio-vm-agent", "status", "-o", "json"])?.output()?;
    serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))
}

/// Output of dpkg while it installs a version with this program.
fn install_broken(vm: &Booted, version: &str, program: &str) -> Result<String> {
    let file = format!("/root/{version}.deb");
    programs::package_as(version, Some(program), &vm.path(&file))?;
    let output = vm.command(&["dpkg", "--install", &file])?.output()?;
    ensure!(output.status.success(), "a broken agent broke dpkg: {output:?}");
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

fn upgrade(vm: &Booted, version: &str) -> Result<()> {
    let file = format!("/root/{version}.deb");
    programs::package_as(version, None, &vm.path(&file))?;
    let before = vm.property(AGENT, "MainPID")?;
    vm.run(&["dpkg", "--install", &file])?;
    fs::remove_file(vm.path(&file))?;
    expect_another(vm, AGENT, &before)
}
