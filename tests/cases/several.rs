//! Several applications that serve as one workload.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::mesh::{Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::both;

const RATE: u32 = 200;
const FIRST: &str = "productcatalogservice";
const SECOND: &str = "cache";

pub(crate) fn trials() -> Vec<Trial> {
    both(
        "a second container comes, is unwell, is replaced and goes, all but its failure at 200 calls a second: none fails",
        |kind| {
            let settings = Settings {
                application: Application::Container,
                ..Settings::default()
            };
            with_mesh(kind, settings, |mesh| second_comes_and_goes(mesh))
        },
    )
    .into()
}

fn second_comes_and_goes(mesh: &Mesh) -> Result<()> {
    let env = mesh.vm.bundle().join("cluster.env");
    let ports = fs::read_to_string(&env)?.replace("PORTS='3550'", "PORTS='3550,3551'");
    fs::write(&env, ports)?;
    let alone = fs::read_to_string(mesh.vm.config())?;
    let (before, container) = alone.split_once("[workload.container]\n").context("no container")?;
    let with = |keys: &str| {
        let own = |line: &&str| line.starts_with("image = ") || line.starts_with("docker_socket = ");
        let same: Vec<_> = container.lines().filter(own).collect();
        format!(
            "{before}[[workload]]\n[workload.container]\n{container}\n[[workload]]\nname = {SECOND:?}\n\
             probe = {{ grpc = {{ port = 3551 }}, period = \"1s\" }}\n\
             [workload.container]\nname = {SECOND:?}\nports = [\"3551:3550\"]\n{}\n{keys}\n",
            same.join("\n")
        )
    };
    let _agent = mesh.join()?;
    let first = id_of(mesh, FIRST)?;

    added(mesh, &with(""))?;
    ensure!(id_of(mesh, FIRST)? == first, "the first was made anew");

    // The VM is as well as the one that is worst.
    let second = id_of(mesh, SECOND)?;
    signal(mesh, "USR1")?;
    mesh.wait_until_healthy(false)?;
    let (status, _) = mesh.vm.status(&mesh.network)?;
    ensure!(status["probe"]["reason"].to_string().contains("cache: "), "{status}");
    signal(mesh, "USR2")?;
    mesh.wait_until_healthy(true)?;

    let calling = mesh.start_calls(RATE)?;
    reload(mesh, &with("env = { RELEASE = \"2\" }"))?;
    eventually("another second container", PATIENCE, || {
        ensure!(id_of(mesh, SECOND)? != second, "the former one runs");
        Ok(())
    })?;
    expect_both(mesh)?;
    reload(mesh, &alone)?;
    let left = mesh.vm.docker()?.cli(&["ps", "--all", "--format", "{{.Names}}"])?;
    ensure!(left.trim() == FIRST, "{left}");
    eventually("the first alone", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(
            status["container"]["state"] == "running" && status["health"]["ready"] == json!(true),
            "{status}"
        );
        Ok(())
    })?;
    calling.stop()?.expect_all_answered()?;
    ensure!(id_of(mesh, FIRST)? == first, "the first was made anew");
    Ok(())
}

/// Adds the second. Until that has been well, it takes no call from the first.
fn added(mesh: &Mesh, config: &str) -> Result<()> {
    let calling = mesh.start_calls(RATE)?;
    reload(mesh, &config.replace("port = 3551", "port = 3552"))?;
    eventually("the second alone is unwell", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let problems = status["health"]["problems"].to_string();
        ensure!(
            problems.contains("cache: it was added and has not been well yet"),
            "{status}"
        );
        ensure!(problems.contains("3552"), "{status}");
        ensure!(status["probe"]["state"] == "healthy", "{status}");
        Ok(())
    })?;
    mesh.wait_until_healthy(true)?;
    reload(mesh, config)?;
    expect_both(mesh)?;
    calling.stop()?.expect_all_answered()
}

fn reload(mesh: &Mesh, config: &str) -> Result<()> {
    fs::write(mesh.vm.config(), config)?;
    let output = mesh.vm.agent(&mesh.network, &["reload"])?;
    ensure!(output.stdout == b"taken up\n", "{output:?}");
    Ok(())
}

/// Waits until both containers run and count, none is to take over, and the VM serves.
fn expect_both(mesh: &Mesh) -> Result<()> {
    eventually("both containers", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        for name in ["container", SECOND] {
            let container = &status["container"][name];
            let is_settled = container["successor"] == Value::Null;
            ensure!(container["state"] == "running" && is_settled, "{status}");
        }
        ensure!(status["health"]["ready"] == json!(true), "{status}");
        ensure!(status["probe"]["state"] == "healthy", "{status}");
        ensure!(
            !status["health"]["problems"].to_string().contains("it was added"),
            "{status}"
        );
        Ok(())
    })
}

fn signal(mesh: &Mesh, signal: &str) -> Result<()> {
    mesh.vm.docker()?.cli(&["kill", "--signal", signal, SECOND]).map(drop)
}

fn id_of(mesh: &Mesh, name: &str) -> Result<String> {
    mesh.vm.docker()?.cli(&["inspect", "--format", "{{.Id}}", name])
}
