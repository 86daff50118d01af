//! Istio's own chains by iptables-legacy, with no more than the units' rights.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;

use super::steps::*;

pub(super) fn chains(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    for tool in ["iptables", "ip6tables"] {
        let legacy = format!("/usr/sbin/{tool}-legacy");
        vm.run(&["update-alternatives", "--set", tool, &legacy])?;
    }
    let config = fs::read_to_string(vm.path(CONFIG))?;
    fs::write(vm.path(CONFIG), config + "[intercept]\nbackend = \"iptables\"\n")?;
    // dockerd would have made its lock, and our chains go where Docker's are.
    vm.run(&[
        "systemctl",
        "disable",
        "--quiet",
        "--now",
        "docker.service",
        "docker.socket",
    ])?;
    vm.run(&["nft", "flush", "ruleset"])?;
    vm.shut_down()?;
    vm.boot()?;
    expect_calls(mesh)?;
    let rules = vm.run(&["iptables-legacy-save"])?;
    ensure!(rules.contains("15006"), "{rules}");
    vm.run(&["systemctl", "stop", AGENT])?;
    let rules = vm.run(&["iptables-legacy-save"])?;
    ensure!(!rules.contains("ISTIO"), "{rules}");
    Ok(())
}
