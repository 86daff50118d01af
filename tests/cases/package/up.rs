//! From the package to a call in one command, with an Envoy out of a registry and no Docker asked, and back.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;
use e2e::network::Host;
use e2e::registry::Registry;

use super::steps::*;

const BUNDLE: &str = "/etc/istio-vm-agent/bundle";
const CALLED: &str = "cartservice.onlineboutique.svc.cluster.local:7070";
/// State that a membership leaves on purpose, as a stop does: the certificate and what is cached.
const STATE: &str = "/var/lib/istio-vm-agent";

pub(super) fn up_and_down(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    let envoy = vm.path("/usr/local/bin/envoy");
    let registry = Registry::start(&mesh.network, Host::Vm, &envoy)?;
    fs::remove_file(envoy)?;
    install(vm)?;
    copy_bundle(mesh, vm)?;
    start_application(vm)?;
    let before = without_state(vm)?;

    let image = registry.image();
    let mut up = vec!["istio-vm-agent", "up", "--directory", BUNDLE, "--envoy-image", &image];
    // The first by name that it would choose by itself is served by nobody here.
    up.extend(["--call", CALLED]);
    let alone = vm.command(&up)?.output()?;
    let said = String::from_utf8_lossy(&alone.stderr).into_owned();
    ensure!(!alone.status.success() && said.contains("add --yes"), "{said}");
    ensure!(
        vm.property(AGENT, "ActiveState")? == "inactive",
        "it has started nobody's agent"
    );
    // The second one goes on: neither the configuration nor Envoy is in its way.
    up.push("--yes");
    let said = vm.run(&up)?;
    expect_calls(mesh)?;
    let config = fs::read_to_string(vm.path(CONFIG))?;
    ensure!(
        config.contains(&format!("image = \"{}\"", registry.pinned())),
        "{config}"
    );
    for part in [
        &format!("Calls from it  {CALLED} answers"),
        "Calls to it    pods call this VM as productcatalogservice.onlineboutique.svc.cluster.local:3550",
    ] {
        ensure!(said.contains(part), "{part:?} is not in\n{said}");
    }
    ensure!(
        vm.run(&["systemctl", "is-enabled", AGENT])?.trim() == "enabled",
        "it does not start at boot"
    );

    // One that serves is left alone.
    let pid = vm.property(AGENT, "MainPID")?;
    // Nobody has to agree to what changes nothing.
    vm.run(&["istio-vm-agent", "up"])?;
    ensure!(vm.property(AGENT, "MainPID")? == pid, "it is another agent");
    let other = ["istio-vm-agent", "up", "--yes", "--https", "https://h.invalid/bundle"];
    ensure!(
        !vm.command(&other)?.output()?.status.success(),
        "it takes another source"
    );

    vm.run(&["istio-vm-agent", "down", "--purge"])?;
    expect_same(&before, &without_state(vm)?)?;
    ensure!(
        !vm.path(STATE).join("envoy").exists(),
        "the fetched Envoy is still there"
    );
    let enabled = vm.command(&["systemctl", "is-enabled", AGENT])?.output()?;
    ensure!(!enabled.status.success(), "it starts at boot");
    Ok(())
}

/// The VM's traces, but for the state and for what starts at boot.
fn without_state(vm: &Booted) -> Result<BTreeSet<String>> {
    let mut found = traces(vm)?;
    // The package itself has the agent start at boot, and who leaves the mesh has not.
    found.retain(|line| !line.starts_with(STATE) && !line.contains("multi-user.target.wants/istio-vm-agent"));
    Ok(found)
}
