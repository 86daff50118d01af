//! A systemd service as the workload.

use std::fs;

use anyhow::{Context, Result, ensure};
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

/// Each is started again by itself, and both end with the mesh.
pub(super) fn beside_a_container(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    let config = vm.path(CONFIG);
    let before = fs::read_to_string(&config)?;
    configure_container(mesh, vm)?;
    let with = fs::read_to_string(&config)?;
    let container = with.strip_prefix(&before).context("another configuration")?;
    let service = format!("probe = {{ tcp = {{ port = 3551 }} }}\n[workload.service]\nunit = {SERVICE:?}\n");
    let both =
        format!("{before}[[workload]]\nname = \"catalog\"\n{container}[[workload]]\nname = \"cache\"\n{service}");
    fs::write(&config, both)?;
    let unit = format!("[Unit]\nBefore={AGENT}\n[Service]\nExecStart=/usr/local/bin/productcatalog --port 3551\n");
    fs::write(vm.path("/etc/systemd/system").join(SERVICE), unit)?;
    vm.run(&["systemctl", "daemon-reload"])?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;

    let container = || {
        vm.run(&[
            "docker",
            "inspect",
            "--format",
            "{{.State.Pid}}",
            "productcatalogservice",
        ])
    };
    let (first, pid) = (container()?, vm.property(SERVICE, "MainPID")?);
    vm.kill(SERVICE)?;
    expect_another(vm, SERVICE, &pid)?;
    ensure!(container()? == first, "the container was started again");
    let pid = vm.property(SERVICE, "MainPID")?;
    vm.run(&["docker", "kill", "productcatalogservice"])?;
    e2e::eventually("another process in the container", e2e::PATIENCE, || {
        let now = container()?;
        ensure!(now != first && now.trim() != "0", "it is {now}");
        Ok(())
    })?;
    ensure!(vm.property(SERVICE, "MainPID")? == pid, "the service was started again");
    expect_calls(mesh)?;

    vm.run(&["systemctl", "stop", AGENT])?;
    let (state, left) = (
        vm.property(SERVICE, "ActiveState")?,
        vm.run(&["docker", "ps", "--quiet"])?,
    );
    ensure!(
        state != "active" && left.trim().is_empty(),
        "the service is {state}, containers: {left}"
    );
    Ok(())
}

/// What `check` says of the unit.
fn finding(vm: &Booted) -> Result<String> {
    vm.run(&["sh", "-c", "istio-vm-agent check --only IVA806 2>&1 || true"])
}
