//! Where Envoy comes from.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Mesh, with_mesh};
use e2e::vm::Settings;
use libtest_mimic::Trial;

use crate::stand_in_only;

pub(crate) fn trials() -> Vec<Trial> {
    let image = Settings {
        envoy_image: true,
        ..Settings::default()
    };
    let out_of_an_image = move || with_mesh(e2e::mesh::Kind::StandIn, image, out_of_an_image);
    vec![stand_in_only(
        "Envoy out of an image, which a restart does not need again",
        out_of_an_image,
    )]
}

fn out_of_an_image(mesh: &mut Mesh) -> Result<()> {
    let check = mesh.vm.agent(&mesh.network, &["check"])?;
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    ensure!(check.contains("not fetched yet, and there to be"), "{check}");

    let mut agent = mesh.join()?;
    mesh.expect_calls()?;
    let program = program(mesh)?;
    let kept = mesh.vm.state_folder().join("envoy");
    ensure!(program.starts_with(&kept.display().to_string()), "Envoy is {program}");

    agent.stop()?;
    mesh.vm.stop_registry();
    let _agent = mesh.join()?;
    mesh.expect_calls()?;
    let check = mesh.vm.agent(&mesh.network, &["check"])?;
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    ensure!(check.contains("without Istio's own filters"), "{check}");
    Ok(())
}

/// Program that Envoy's process runs.
fn program(mesh: &Mesh) -> Result<String> {
    let pid = mesh.vm.envoy_pid(&mesh.network)?.as_raw_nonzero();
    let program = fs::read_link(format!("/proc/{pid}/exe")).context("Envoy is gone")?;
    Ok(program.to_string_lossy().into_owned())
}
