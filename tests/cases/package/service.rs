//! A systemd service as the workload.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;

use super::steps::*;

const SERVICE: &str = "productcatalog.service";

/// It starts and stops with the mesh, is started again when it is killed, and outlives the agent's restart.
pub(super) fn follows_the_mesh(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    let config = vm.path(CONFIG);
    let service = format!("[workload.service]\nunit = {SERVICE:?}\n");
    fs::write(&config, fs::read_to_string(&config)? + &service)?;
    ensure!(finding(vm)?.contains("is not there"), "{}", finding(vm)?);

    let unit = format!("[Unit]\nBefore={AGENT}\n[Service]\nExecStart=/usr/local/bin/productcatalog\n");
    fs::write(vm.path("/etc/systemd/system").join(SERVICE), unit)?;
    vm.run(&["systemctl", "daemon-reload"])?;
    ensure!(finding(vm)?.starts_with("ok "), "{}", finding(vm)?);
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;

    let first = vm.property(SERVICE, "MainPID")?;
    let agent = vm.property(AGENT, "MainPID")?;
    vm.run(&["systemctl", "restart", AGENT])?;
    expect_another(vm, AGENT, &agent)?;
    ensure!(vm.property(SERVICE, "MainPID")? == first, "it was started again");
    vm.kill(SERVICE)?;
    expect_another(vm, SERVICE, &first)?;
    expect_calls(mesh)?;

    vm.run(&["systemctl", "stop", AGENT])?;
    let state = vm.property(SERVICE, "ActiveState")?;
    ensure!(
        state == "inactive" || state == "failed",
        "it is {state} without the mesh"
    );
    Ok(())
}

/// What `check` says of the unit.
fn finding(vm: &Booted) -> Result<String> {
    vm.run(&["sh", "-c", "istio-vm-agent check --only IVA806 2>&1 || true"])
}
