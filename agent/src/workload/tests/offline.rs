//! The container without an agent.

use anyhow::Error;

use super::*;
use crate::part::Effect;

#[tokio::test(start_paused = true)]
async fn container_is_planned_and_removed_without_an_agent() {
    let docker = Docker::started();
    let config = config(&docker, "ports = ['8080:80']\nenv = { TOKEN = 'secret' }");
    docker.edit(|engine| engine.containers.extend([ours("web", "old"), container("other", &[])]));
    let planned = plan(&[options(&config)]).await.unwrap();
    assert_eq!(
        planned.changes[0].diff,
        format!(
            "- container web (000000000000)\n+ image {IMAGE}\n+ container web from {IMAGE}\n\
             +   network: Docker's bridge\n+   ports: 8080:80\n+   environment: TOKEN"
        )
    );
    assert_eq!(planned.words(Effect::Removes), ["the container web (000000000000)"]);

    let right = spec::hash(&config);
    docker.edit(|engine| engine.containers[0] = ours("web", &right));
    assert_eq!(plan(&[options(&config)]).await.unwrap().changes, []);
    assert_eq!(docker.calls(), [""; 0]);

    remove(&config.docker_socket, config.stop_timeout).await.unwrap();
    assert_eq!(docker.calls(), ["stop web t=7", "remove web"]);
    assert_eq!(docker.edit(|engine| engine.containers[0].name.clone()), "other");
}

#[tokio::test]
async fn plan_without_dockerd_says_what_it_could_not_see() {
    let docker = Docker::stopped();
    let planned = plan(&[options(&config(&docker, ""))]).await.unwrap();
    assert_eq!(planned.changes, []);
    assert!(
        planned.unseen[0].starts_with("whether the container web runs as configured"),
        "{planned:?}"
    );
    assert!(planned.unseen[0].contains("failed to reach Docker at"), "{planned:?}");
}

#[tokio::test]
async fn revert_on_a_vm_without_docker_has_nothing_to_do() {
    let docker = Docker::stopped();
    let socket = docker.socket();
    let socket = socket.to_str().unwrap();
    remove(socket, Duration::ZERO).await.unwrap();
    // A socket that nobody serves is another matter: containers of ours may be there.
    drop(std::os::unix::net::UnixListener::bind(socket).unwrap());
    let error: Error = remove(socket, Duration::ZERO).await.unwrap_err();
    assert!(format!("{error:#}").contains("Connection refused"), "{error:#}");
}
