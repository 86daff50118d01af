//! Acts of somebody, or of the kernel, on the container.

use istio_vm_agent::config::ContainerConfig;

use crate::agent::{Agent, IMAGE, config};
use crate::dockerd::Dockerd;
use crate::registry::{self, Registry};

#[tokio::test]
async fn container_comes_back_from_whatever_is_done_to_it_by_hand() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent.shows(&["Running", "trouble: None"]).await;

    dockerd.docker(&["pause", "web"]);
    agent.shows(&["Running", "docker unpause web"]).await;
    dockerd.docker(&["unpause", "web"]);
    agent.shows(&["Running", "trouble: None"]).await;

    // It needs its image's name no more, until it has to be made anew.
    let removed = dockerd.docker(&["rmi", "--force", IMAGE]);
    assert!(removed.status.success(), "{removed:?}");
    dockerd.docker(&["kill", "web"]);
    agent.shows(&["Running", "restarts: 1"]).await;
    dockerd.until_served(3550).await;
    dockerd.docker(&["rm", "--force", "web"]);
    agent.shows(&["Failed", "failed to pull", IMAGE]).await;
    dockerd.import(IMAGE);
    agent.shows(&["Running", "restarts: 2"]).await;
    dockerd.until_served(3550).await;
    agent.stop().await;
}

#[tokio::test]
async fn container_without_memory_is_said_to_be_killed_for_that() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let hungry = ["/busybox", "sh", "-c", "a=0123456789abcdef; while :; do a=$a$a; done"];
    let config = ContainerConfig {
        command: Some(hungry.map(str::to_owned).to_vec()),
        ..config(&dockerd, "memory = '16m'")
    };
    let mut agent = Agent::start(config).await;
    agent
        .shows(&["Failed", "the kernel killed it for want of memory"])
        .await;
    agent.stop().await;
}

#[tokio::test]
async fn dockerd_whose_disk_is_full_is_told_and_waited_for() {
    let dockerd = Dockerd::started_on_disk("64m").await;
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::started(&dockerd, folder.path()).await;
    let login = registry.push(folder.path());
    dockerd.fill_disk();
    let config = ContainerConfig {
        image: registry::IMAGE.to_owned(),
        ..config(&dockerd, &format!("registry_config = {login:?}"))
    };
    let mut agent = Agent::start(config).await;
    agent
        .shows(&["Failed", "no space left on device", "docker system df"])
        .await;
    dockerd.empty_disk();
    agent.shows(&["Running", "restarts: 0"]).await;
    dockerd.until_served(3550).await;
    agent.stop().await;
}
