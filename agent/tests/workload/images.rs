//! Where images come from, and what becomes of earlier ones.

use istio_vm_agent::config::ContainerConfig;

use crate::agent::{Agent, config};
use crate::dockerd::Dockerd;
use crate::registry::{self, Registry};

#[tokio::test]
async fn registry_that_wants_a_token_gives_its_image_to_the_configured_login() {
    let dockerd = Dockerd::started(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::started(&dockerd, folder.path()).await;
    let login = registry.push(folder.path());

    let of_registry = |extra: &str| ContainerConfig {
        image: registry::IMAGE.to_owned(),
        ..config(&dockerd, extra)
    };
    let mut agent = Agent::start(of_registry("")).await;
    agent.shows(&["Failed", "the registry wants a login"]).await;
    agent.stop().await;
    let mut agent = Agent::start(of_registry(&format!("registry_config = {login:?}"))).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    agent.stop().await;
    drop(registry);
}

#[tokio::test]
async fn earlier_images_are_removed_but_for_those_that_a_container_has() {
    let dockerd = Dockerd::started(&[]).await;
    for tag in ["used", "unused", "current"] {
        dockerd.import(&format!("shop.example/web:{tag}"));
    }
    dockerd.import("shop.example/other:1");
    let bystander = dockerd.docker(&["create", "--name", "bystander", "shop.example/web:used", "/busybox"]);
    assert!(bystander.status.success(), "{bystander:?}");
    let config = ContainerConfig {
        image: "shop.example/web:current".to_owned(),
        ..config(&dockerd, "keep_images = 0")
    };
    let mut agent = Agent::start(config).await;
    agent.shows(&["Running", "successor: None"]).await;
    let images = |dockerd: &Dockerd| {
        let output = dockerd.docker(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        let text = String::from_utf8(output.stdout).unwrap();
        let mut images: Vec<String> = text.lines().map(str::to_owned).collect();
        images.sort();
        images
    };
    let left = [
        "shop.example/other:1",
        "shop.example/web:current",
        "shop.example/web:used",
    ];
    dockerd
        .until("the removal of one image", |dockerd| images(dockerd) == left)
        .await;
    agent.stop().await;
}
