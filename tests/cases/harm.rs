//! Harm to a container, and what becomes of it and of the calls: at 200 a second, half of them to the VM.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::docker::Docker;
use e2e::mesh::{Mesh, with_mesh};
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::{both, note};

const RATE: u32 = 200;
const NAME: &str = "productcatalogservice";

pub(crate) fn trials() -> Vec<Trial> {
    both(
        "harm is done to the container, to its image, its dockerd and its registry: it serves again, and what it outlives costs no call",
        |kind| {
            let settings = Settings {
                application: Application::Container,
                docker_config: r#"{ "live-restore": true }"#,
                small_docker_disk: true,
                more: "memory = \"64m\"\n".to_owned(),
                ..Settings::default()
            };
            with_mesh(kind, settings, harmed)
        },
    )
    .into()
}

fn harmed(mesh: &mut Mesh) -> Result<()> {
    mesh.vm.docker()?.publish_next()?;
    let _second = mesh.start_second_workload()?;
    let _agent = mesh.join()?;
    outlived(mesh)?;

    let by_hand = |line: &'static str| move |mesh: &mut Mesh| docker(mesh, line);
    let killed = harm(mesh, "killed", by_hand("kill productcatalogservice"))?;
    let removed = harm(mesh, "removed", by_hand("rm --force productcatalogservice"))?;
    harm(mesh, "killed for want of memory", |mesh| {
        let docker = mesh.vm.docker()?;
        docker.run_out_of_memory(NAME)
    })?;
    ensure!(killed + removed > 0, "no call came to the VM");
    harm(mesh, "paused until its callers are gone", |mesh| {
        docker(mesh, "pause productcatalogservice")?;
        told(mesh, "docker unpause")?;
        mesh.wait_until_healthy(false)?;
        docker(mesh, "unpause productcatalogservice")
    })
    .map(drop)
}

/// Harm to the rest of the VM, not to the container that serves.
fn outlived(mesh: &mut Mesh) -> Result<()> {
    let id = id_of(mesh.vm.docker()?)?;
    let unharmed = |mesh: &mut Mesh, what: &str, done: &dyn Fn(&mut Mesh) -> Result<()>| {
        let lost = harm(mesh, what, done)?;
        ensure!(lost == 0, "{what}: {lost} calls are lost");
        Ok(())
    };
    unharmed(mesh, "its dockerd is away", &|mesh| {
        mesh.vm.restart_docker(&mesh.network, Signal::TERM)
    })?;
    unharmed(mesh, "its image is removed", &|mesh| {
        let image = mesh.vm.docker()?.image();
        docker(mesh, &format!("rmi --force {image}"))
    })?;
    unharmed(mesh, "the registry of the next one is away", &|mesh| {
        let image = mesh.vm.docker()?.image();
        configure(mesh, &image.replace(":5001/", ":5009/"))?;
        told(mesh, "failed to pull")?;
        configure(mesh, &image)
    })?;
    unharmed(mesh, "the disk is full when the next one is pulled", &|mesh| {
        let (docker, image) = (mesh.vm.docker()?, mesh.vm.docker()?.image());
        let full = docker.fill_disk()?;
        configure(mesh, &docker.next_image())?;
        told(mesh, "no space left on device")?;
        configure(mesh, &image)?;
        Ok(fs::remove_file(full)?)
    })?;
    let is_same = id_of(mesh.vm.docker()?)? == id;
    ensure!(is_same, "it is another container");
    Ok(())
}

/// Does harm while calls are made, and waits until all is well; the number of calls that are lost.
fn harm(mesh: &mut Mesh, what: &str, done: impl Fn(&mut Mesh) -> Result<()>) -> Result<usize> {
    let calling = mesh.start_calls(RATE)?;
    done(mesh)?;
    eventually("the container", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let container = &status["container"];
        let is_settled = container["successor"] == Value::Null && container["trouble"] == Value::Null;
        ensure!(container["state"] == "running" && is_settled, "{status}");
        ensure!(status["health"]["ready"] == json!(true), "{status}");
        ensure!(status["probe"]["state"] == "healthy", "{status}");
        Ok(())
    })?;
    mesh.wait_until_healthy(true)?;
    let calls = calling.stop()?;
    note(what, &calls.to_string());
    Ok(calls.failed().count())
}

/// Waits until `status` has these words.
fn told(mesh: &Mesh, words: &str) -> Result<()> {
    eventually(format!("{words} in status"), PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(status["health"]["problems"].to_string().contains(words), "{status}");
        Ok(())
    })
}

fn configure(mesh: &Mesh, image: &str) -> Result<()> {
    let text = fs::read_to_string(mesh.vm.config())?;
    let line = text.lines().find(|line| line.starts_with("image = "));
    let line = line.context("no image is configured")?;
    fs::write(mesh.vm.config(), text.replace(line, &format!("image = {image:?}")))?;
    let output = mesh.vm.agent(&mesh.network, &["reload"])?;
    ensure!(output.stdout == b"taken up\n", "{output:?}");
    Ok(())
}

fn docker(mesh: &Mesh, line: &str) -> Result<()> {
    let words: Vec<_> = line.split(' ').collect();
    mesh.vm.docker()?.cli(&words).map(drop)
}

fn id_of(docker: &Docker) -> Result<String> {
    docker.cli(&["inspect", "--format", "{{.Id}}", NAME])
}
