//! Other versions of the package over the installed one, under calls.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;
use e2e::programs;

use super::steps::*;

/// An agent that never gets ready.
const BROKEN: &str = "#!/bin/sh\nif [ \"$1\" = run ]; then exit 1; fi\n";

pub(super) fn under_load(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    join(mesh, vm)?;
    let envoy = vm.property(ENVOY, "MainPID")?;
    let calling = mesh.start_calls(200)?;

    upgrade(vm, "9.0", None)?;
    let said = {
        programs::package_as("9.1", Some(BROKEN), &vm.path("/root/9.1.deb"))?;
        let output = vm.command(&["dpkg", "--install", "/root/9.1.deb"])?.output()?;
        ensure!(output.status.success(), "a broken agent broke dpkg: {output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    ensure!(
        said.contains("the agent of this version is not ready; traffic goes on as it was"),
        "an agent that does not get ready is not told of: {said}"
    );
    // Back to where it came from: over the broken one, and to an older version.
    upgrade(vm, "9.0", None)?;
    let before = vm.property(AGENT, "MainPID")?;
    vm.run(&["dpkg", "--install", PACKAGE])?;
    expect_another(vm, AGENT, &before)?;
    calling.stop()?.expect_all_answered()?;
    ensure!(vm.property(ENVOY, "MainPID")? == envoy, "it is not the Envoy of before");
    Ok(())
}

fn upgrade(vm: &Booted, version: &str, program: Option<&str>) -> Result<()> {
    let file = format!("/root/{version}.deb");
    programs::package_as(version, program, &vm.path(&file))?;
    let before = vm.property(AGENT, "MainPID")?;
    vm.run(&["dpkg", "--install", &file])?;
    fs::remove_file(vm.path(&file))?;
    expect_another(vm, AGENT, &before)
}
