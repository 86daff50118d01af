//! Envoy out of the network and in the agent's own directory, under the rights that the units leave.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;
use e2e::network::{Host, Network};
use e2e::pki::Pki;
use e2e::web::{WebServer, one_file};

use super::steps::*;

const PORT: u16 = 8443;
/// Of no Envoy.
const OTHER: &str = "0000000000000000000000000000000000000000000000000000000000000000";

pub(super) fn from_a_url(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    let served = vm.path("/root/envoy");
    fs::rename(vm.path("/usr/local/bin/envoy"), &served)?;
    let sum = vm.run(&["sha256sum", "/root/envoy"])?;
    let sum = sum.split(' ').next().context("no sum")?;
    let pki = Pki::default();
    fs::write(vm.path("/root/ca.pem"), pki.root_pem())?;
    let server = serve(mesh, &pki, &served)?;

    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    let without = fs::read_to_string(vm.path(CONFIG))?;
    let fetched = |sum: &str| {
        let url = format!("https://{}/envoy", Network::address(Host::ControlPlane, PORT));
        let envoy = format!("[envoy]\nurl = {url:?}\nsha256 = {sum:?}\nca_file = \"/etc/istio-vm-agent/ca.pem\"\n");
        fs::write(vm.path(CONFIG), format!("{without}{envoy}"))
    };
    vm.run(&["cp", "/root/ca.pem", "/etc/istio-vm-agent/ca.pem"])?;
    fetched(sum)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;
    let pid = vm.property(ENVOY, "MainPID")?;
    let program = vm.run(&["readlink", &format!("/proc/{pid}/exe")])?;
    let kept = format!("/var/lib/istio-vm-agent/envoy/{sum}/envoy");
    ensure!(program.trim() == kept, "Envoy is {program}");

    // Another one is wanted, and there is none.
    drop(server);
    fetched(OTHER)?;
    vm.run(&["systemctl", "reload", AGENT])?;
    e2e::eventually("the status to tell", e2e::PATIENCE, || {
        // It exits with 1: something is wrong.
        let status = vm.command(&["istio-vm-agent", "status"])?.output()?.stdout;
        let status = String::from_utf8_lossy(&status);
        ensure!(
            status.contains("an Envoy that was fetched before serves: failed to fetch envoy.url"),
            "{status}"
        );
        Ok(())
    })?;
    let check = vm.run(&["istio-vm-agent", "check"])?;
    ensure!(
        check.contains("can't be: ") && check.contains(&format!("until then {kept} serves")),
        "{check}"
    );
    ensure!(vm.property(ENVOY, "MainPID")? == pid, "it is not the Envoy of before");
    // Nor does a start need the server.
    vm.run(&["systemctl", "stop", AGENT])?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)
}

fn serve(mesh: &Mesh, pki: &Pki, file: &std::path::Path) -> Result<WebServer> {
    let host = Host::ControlPlane;
    let credentials = pki.issue_for_names(&[&host.ipv4().to_string()]);
    let address = Network::address(host, PORT).parse()?;
    WebServer::start(&mesh.network, host, address, Some(&credentials), one_file(file))
}
