//! Another container in the place of one that serves.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::{both, note};

const RATE: u32 = 200;
const NAME: &str = "productcatalogservice";

pub(crate) fn trials() -> Vec<Trial> {
    let on = |application: Application, case: fn(&Mesh) -> Result<()>| {
        move |kind: Kind| {
            let settings = Settings {
                application,
                ..Settings::default()
            };
            with_mesh(kind, settings, |mesh| case(mesh))
        }
    };
    [
        both(
            "another container at 200 calls a second: none fails, and a bad one is rolled back",
            on(Application::Container, rolled),
        ),
        both(
            "another container on the VM's network, with a second workload: none of 200 calls a second fails",
            on(Application::HostContainer, recreated),
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// One that is well takes over, one that ends at once does not.
fn rolled(mesh: &Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    let calling = mesh.start_calls(RATE)?;
    let first = id_of(mesh)?;
    let second = expect_takeover(mesh, "env = { RELEASE = \"2\" }", &first)?;
    let calls = calling.stop()?;
    note("a rolling replacement", &calls.to_string());
    calls.expect_all_answered()?;

    let calling = mesh.start_calls(RATE)?;
    configure(mesh, "command = [\"--no-such-option\"]")?;
    let status = eventually("the refusal in status", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(status["health"]["codes"] == json!(["container-successor"]), "{status}");
        Ok(status)
    })?;
    let told = status["container"]["successor"]["failed"].to_string();
    ensure!(told.contains("rolled back") && told.contains("exited"), "{told}");
    ensure!(status["health"]["ready"] == json!(true), "{status}");
    calling.stop()?.expect_all_answered()?;
    ensure!(id_of(mesh)? == second, "the one that was well is gone");
    let left = mesh.vm.docker()?.cli(&["ps", "--all", "--format", "{{.Names}}"])?;
    ensure!(left.trim() == NAME, "{left}");
    // As its remedy says: mended, and taken up.
    expect_takeover(mesh, "env = { RELEASE = \"3\" }", &second).map(drop)
}

/// Two can't have the VM's port: callers go to the second workload first.
fn recreated(mesh: &Mesh) -> Result<()> {
    let _second = mesh.start_second_workload()?;
    let _agent = mesh.join()?;
    let calling = mesh.start_calls(RATE)?;
    let first = id_of(mesh)?;
    expect_takeover(mesh, "env = { RELEASE = \"2\" }", &first)?;
    let calls = calling.stop()?;
    note("a replacement on the VM's network", &calls.to_string());
    calls.expect_all_answered()
}

/// Has a container with `keys` take over; its id.
fn expect_takeover(mesh: &Mesh, keys: &str, former: &str) -> Result<String> {
    configure(mesh, keys)?;
    eventually("the other container", PATIENCE, || {
        let id = id_of(mesh)?;
        ensure!(id != former, "the former one runs");
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let container = &status["container"];
        ensure!(
            container["state"] == "running" && container["successor"] == Value::Null,
            "{status}"
        );
        ensure!(status["health"]["ready"] == json!(true), "{status}");
        Ok(id)
    })
}

fn configure(mesh: &Mesh, keys: &str) -> Result<()> {
    let config = fs::read_to_string(mesh.vm.config())?;
    let (before, container) = config.split_once("[workload.container]\n").context("no container")?;
    let kept: String = container
        .lines()
        .filter(|line| !line.starts_with("env = ") && !line.starts_with("command = "))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(
        mesh.vm.config(),
        format!("{before}[workload.container]\n{keys}\n{kept}"),
    )?;
    let output = mesh.vm.agent(&mesh.network, &["reload"])?;
    ensure!(output.stdout == b"taken up\n", "{output:?}");
    Ok(())
}

fn id_of(mesh: &Mesh) -> Result<String> {
    mesh.vm.docker()?.cli(&["inspect", "--format", "{{.Id}}", NAME])
}
