//! Containers of somebody else, and a dockerd of somebody else.

use std::time::Duration;

use istio_vm_agent::config::ContainerConfig;
use istio_vm_agent::workload;

use crate::agent::{Agent, IMAGE, again, config, options};
use crate::dockerd::Dockerd;

#[tokio::test]
async fn containers_of_somebody_else_are_never_touched() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    for name in ["web", "bystander"] {
        let made = dockerd.docker(&["run", "--detach", "--name", name, IMAGE, "/busybox", "sleep", "600"]);
        assert!(made.status.success(), "{made:?}");
    }
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent.shows(&["was not made by this agent", "docker rm -f web"]).await;
    assert!(workload::plan(&[options(config(&dockerd, ""))]).await.is_err());
    agent.stop().await;
    let ours = ContainerConfig {
        name: "ours".to_owned(),
        ..config(&dockerd, "")
    };
    let mut agent = Agent::start(ours.clone()).await;
    agent.shows(&["Running", "successor: None"]).await;
    drop(agent);
    assert_eq!(dockerd.inspect("ours", "{{.State.Running}}"), "true");

    workload::remove(&ours.docker_socket, Duration::from_secs(1))
        .await
        .unwrap();
    let mut left: Vec<String> = dockerd.containers().lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, ["bystander", "web"]);
    assert_eq!(dockerd.inspect("web", "{{.State.Running}}"), "true");
}

#[tokio::test]
async fn container_of_an_image_of_ours_is_not_ours() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent.shows(&["Running", "successor: None"]).await;
    for command in [
        &["commit", "web", "committed:1"][..],
        &[
            "run",
            "--detach",
            "--name",
            "bystander",
            "committed:1",
            "/busybox",
            "sleep",
            "600",
        ],
        &["create", "--name", "istio-vm-agent-copy", "committed:1", "/busybox"],
    ] {
        let done = dockerd.docker(command);
        assert!(done.status.success(), "{done:?}");
    }
    let label = "{{index .Config.Labels \"io.istio.vm-agent.managed\"}}";
    assert_eq!(dockerd.inspect("bystander", label), "true");
    let mut agent = again(agent, config(&dockerd, "env = { A = '1' }")).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    workload::remove(&dockerd.socket(), Duration::from_secs(1))
        .await
        .unwrap();
    drop(agent);
    let mut left: Vec<String> = dockerd.containers().lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, ["bystander", "istio-vm-agent-copy"]);
    assert_eq!(dockerd.inspect("bystander", "{{.State.Running}}"), "true");
}

#[tokio::test]
async fn rootless_dockerd_is_given_no_container() {
    let dockerd = Dockerd::started_rootless().await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent
        .shows(&["Failed", "is rootless", "workload.container.docker_socket"])
        .await;
    let error = workload::plan(&[options(config(&dockerd, ""))]).await.unwrap_err();
    assert!(error.to_string().contains("is rootless"), "{error:#}");
    agent.stop().await;
    assert_eq!(dockerd.containers(), "");
}
