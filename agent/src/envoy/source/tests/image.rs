//! The program out of an image.

use super::super::remove_cut_short;
use super::{OTHER, PROGRAM, Providing, Vm};
use crate::config::EnvoyConfig;
use crate::docker::fake::{Container, Docker};

fn of_image(docker: &Docker) -> (Vm, String) {
    let reference = format!("registry.example/istio/proxyv2@sha256:{OTHER}");
    let vm = Vm::new(EnvoyConfig {
        image: Some(reference.clone()),
        docker_socket: docker.socket().to_string_lossy().into_owned(),
        ..EnvoyConfig::default()
    });
    (vm, reference)
}

fn archive(content: &[u8]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(content.len() as u64);
    header.set_cksum();
    tar.append_data(&mut header, "envoy", content).unwrap();
    tar.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn image_gives_its_envoy_and_leaves_nothing_in_docker() {
    let docker = Docker::started();
    let (vm, reference) = of_image(&docker);
    docker.edit(|engine| engine.archive = Some(archive(PROGRAM)));
    let path = Providing::of(&vm).program().await;
    assert_eq!(std::fs::read(&path).unwrap(), PROGRAM);
    assert!(path.ends_with(format!("{OTHER}/envoy")), "{path:?}");
    let calls = [
        format!("pull {reference} "),
        "create istio-vm-agent-copy".to_owned(),
        "archive istio-vm-agent-copy /usr/local/bin/envoy".to_owned(),
        "remove istio-vm-agent-copy".to_owned(),
        format!("rmi {reference}"),
    ];
    assert_eq!(docker.calls(), calls);
    // No Docker is needed from now on.
    drop(docker);
    assert_eq!(Providing::of(&vm).program().await, path);
}

fn leftover() -> Container {
    Container {
        id: "1".to_owned(),
        name: "istio-vm-agent-copy".to_owned(),
        labels: [("io.istio.vm-agent.managed".to_owned(), "true".to_owned())].into(),
        image: "sha256:base".to_owned(),
        running: false,
        status: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn image_that_was_here_stays_and_a_leftover_of_a_crash_goes() {
    let docker = Docker::started();
    let (vm, reference) = of_image(&docker);
    docker.edit(|engine| {
        engine.archive = Some(archive(PROGRAM));
        engine.images.insert(reference.clone());
        engine.containers.push(leftover());
    });
    Providing::of(&vm).program().await;
    let left = docker.edit(|engine| (engine.images.len(), engine.containers.len()));
    assert_eq!(
        (left, docker.calls()[0].as_str()),
        ((1, 0), "remove istio-vm-agent-copy")
    );
}

#[tokio::test(start_paused = true)]
async fn copy_leaves_somebody_elses_container_of_its_name_alone() {
    let docker = Docker::started();
    let (vm, _) = of_image(&docker);
    let theirs = Container {
        labels: Default::default(),
        ..leftover()
    };
    docker.edit(|engine| engine.containers.push(theirs));
    let mut providing = Providing::of(&vm);
    providing.says("istio-vm-agent-copy was not made by this agent").await;
    remove_cut_short(&vm.options).await;
    assert_eq!(docker.edit(|engine| engine.containers.len()), 1);
    docker.edit(|engine| {
        engine.archive = Some(archive(PROGRAM));
        engine.containers.clear();
    });
    providing.program().await;
}

#[tokio::test(start_paused = true)]
async fn image_that_docker_cant_give_is_told_and_tried_again() {
    let mut docker = Docker::stopped();
    let (vm, _) = of_image(&docker);
    let mut providing = Providing::of(&vm);
    providing.says("check that docker.service runs").await;
    docker.edit(|engine| engine.pull_error = Some("manifest unknown".to_owned()));
    docker.start();
    providing.says("check the tag or digest in envoy.image").await;
    docker.edit(|engine| engine.pull_error = None);
    providing.says("is it an image of Istio's proxyv2?").await;
    docker.edit(|engine| engine.archive = Some(archive(b"#!/bin/sh")));
    providing.says("`envoy` in the archive is no program").await;
    docker.edit(|engine| engine.archive = Some(archive(PROGRAM)));
    providing.program().await;
    assert_eq!(docker.edit(|engine| engine.containers.len()), 0);
}

#[tokio::test(start_paused = true)]
async fn copy_that_the_agents_end_cuts_short_is_removed() {
    let docker = Docker::started();
    let (vm, _) = of_image(&docker);
    docker.edit(|engine| engine.containers.push(leftover()));
    remove_cut_short(&vm.options).await;
    assert_eq!(docker.calls(), ["remove istio-vm-agent-copy"]);
}
