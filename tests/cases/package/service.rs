//! A systemd service as the workload.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::istiod::{Fault, Service};
use e2e::mesh::Mesh;
use e2e::{PATIENCE, eventually};
use serde_json::Value;

use super::steps::*;

const SERVICE: &str = "productcatalog.service";

/// The service starts and stops with the mesh, is started again when it is killed, and outlives the agent's restart.
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

/// The remedies of `status` are followed: a service is waited for, and then mended.
pub(super) fn leads_out(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    let config = vm.path(CONFIG);
    let service = format!("[workload.service]\nunit = {SERVICE:?}\n");
    fs::write(&config, fs::read_to_string(&config)? + &service)?;
    let write_unit = |program: &str| {
        let unit = format!("[Unit]\nBefore={AGENT}\n[Service]\nExecStart=/usr/local/bin/{program}\n");
        fs::write(vm.path("/etc/systemd/system").join(SERVICE), unit)?;
        vm.run(&["systemctl", "daemon-reload"]).map(drop)
    };
    write_unit("productcatlog")?;
    let istiod = mesh.control_plane.stand_in()?;
    istiod.set_fault(Service::Ads, Some(Fault::Hang));
    vm.run(&["systemctl", "start", "--no-block", AGENT])?;
    let (_, remedy) = told_of(vm, "envoy-unconfigured", &["service-waiting"])?;
    ensure!(remedy.starts_with("wait for istiod's first push"), "{remedy}");
    istiod.set_fault(Service::Ads, None);
    istiod.set_istio_filters(false);

    let (line, remedy) = told_of(vm, "service-failed", &[])?;
    for command in [&line, &remedy].map(|text| text.split('`').nth(1).context("no command")) {
        let said = vm.run(&["sh", "-c", &format!("{} 2>&1 || true", command?)])?;
        ensure!(said.contains("productcatlog") || said.contains(SERVICE), "{said}");
    }
    write_unit("productcatalog")?;
    expect_calls(mesh)?;
    eventually("nothing to be wrong", PATIENCE, || {
        let health = health(vm)?;
        ensure!(
            health["ready"] == true && !health.to_string().contains("service-"),
            "{health}"
        );
        Ok(())
    })
}

/// The line and the remedy of a cause, once `status` names it with what comes of it.
fn told_of(vm: &Booted, cause: &str, effects: &[&str]) -> Result<(String, String)> {
    eventually(format!("{cause} in status"), PATIENCE, || {
        let health = health(vm)?;
        let has = |code: &&str| health["codes"].to_string().contains(code);
        ensure!(health["codes"][0] == cause && effects.iter().all(has), "{health}");
        let text = |value: &Value| value.as_str().map(str::to_owned).context("no text");
        Ok((text(&health["problems"][0])?, text(&health["remedy"])?))
    })
}

fn health(vm: &Booted) -> Result<Value> {
    let output = vm.command(&["istio-vm-agent", "status", "-o", "json"])?.output()?;
    let mut status: Value = serde_json::from_slice(&output.stdout).with_context(|| format!("{output:?}"))?;
    Ok(status["health"].take())
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
    eventually("another process in the container", PATIENCE, || {
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

/// Finding of `check` about the unit.
fn finding(vm: &Booted) -> Result<String> {
    vm.run(&["sh", "-c", "istio-vm-agent check --only IVA806 2>&1 || true"])
}
