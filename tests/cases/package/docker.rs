//! Beside a dockerd of the VM's own.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::istiod::PeerAuthentication;
use e2e::mesh::Mesh;
use e2e::network::Host;

use super::steps::*;

pub(super) fn restart(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    fs::create_dir_all(vm.path("/etc/docker"))?;
    fs::write(vm.path("/etc/docker/daemon.json"), r#"{"live-restore": true}"#)?;
    vm.run(&["systemctl", "restart", "docker.service"])?;
    install(vm)?;
    configure(mesh, vm)?;
    configure_container(mesh, vm)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;
    let calling = mesh.start_calls(200)?;
    for how in [
        &["systemctl", "restart", "docker.service"][..],
        &[
            "systemctl",
            "kill",
            "--signal=KILL",
            "--kill-who=main",
            "docker.service",
        ],
    ] {
        let before = vm.property("docker.service", "MainPID")?;
        vm.run(how)?;
        expect_another(vm, "docker.service", &before)?;
        vm.run(&["docker", "version"])?;
    }
    calling.stop()?.expect_all_answered()
}

pub(super) fn boots(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    configure_container(mesh, vm)?;
    mesh.set_peer_authentication(PeerAuthentication::Strict)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;

    for power_cut in [false, true, false, true, false] {
        let calling = mesh
            .plaintext_calls_to_the_vm()
            .until_stopped(20)
            .start(&mesh.network, Host::Outside)?;
        if power_cut {
            vm.cut_power()?;
        } else {
            vm.shut_down()?;
        }
        vm.boot()?;
        expect_calls(mesh)?;
        let calls = calling.stop()?;
        ensure!(calls.answered().next().is_none(), "calls passed the mesh by: {calls}");
    }
    Ok(())
}
