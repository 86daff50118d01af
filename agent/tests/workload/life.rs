//! From its start to its end, whatever becomes of dockerd.

use istio_vm_agent::facts::{EnvoyState, InterceptState};
use istio_vm_agent::workload;

use crate::agent::{Agent, IMAGE, config, options};
use crate::dockerd::Dockerd;

#[tokio::test]
async fn container_is_made_kept_adopted_replaced_and_removed() {
    let dockerd = Dockerd::started(&[]).await;
    let mut agent = Agent::start(config(&dockerd, "")).await;
    let failed = [
        "failed to pull",
        IMAGE,
        "check that the VM reaches 127.0.0.1:1",
        "connection refused",
    ];
    agent.shows(&failed).await;
    assert_eq!(dockerd.containers(), "");

    dockerd.import(IMAGE);
    agent.shows(&["Running", "restarts: 0"]).await;
    dockerd.until_served(3550).await;
    assert_eq!(dockerd.inspect("web", "{{.HostConfig.RestartPolicy.Name}}"), "no");
    let first = dockerd.inspect("web", "{{.Id}}");

    dockerd.docker(&["kill", "web"]);
    agent.shows(&["Failed", "exited with status 137"]).await;
    agent.shows(&["Running", "restarts: 1"]).await;
    dockerd.until_served(3550).await;

    drop(agent);
    let process = dockerd.inspect("web", "{{.State.Pid}}");
    let plan = workload::plan(&[options(config(&dockerd, ""))]).await.unwrap();
    assert_eq!(plan.changes, []);
    let mut agent = Agent::start_with(
        options(config(&dockerd, "")),
        EnvoyState::Waiting,
        InterceptState::Absent,
    )
    .await;
    agent.shows(&["Running", &first[..12], "restarts: 0"]).await;
    assert_eq!(dockerd.inspect("web", "{{.State.Pid}}"), process, "it was disturbed");

    drop(agent);
    let mut agent = Agent::start(config(&dockerd, "env = { A = '1' }")).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    assert_ne!(dockerd.inspect("web", "{{.Id}}"), first);
    assert_eq!(dockerd.containers(), "web");

    agent.stop().await;
    assert_eq!(dockerd.containers(), "");
}

#[tokio::test]
async fn container_lives_through_dockerds_restarts() {
    let mut dockerd = Dockerd::started(&["--live-restore"]).await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent.shows(&["Running", "successor: None"]).await;
    let process = dockerd.inspect("web", "{{.State.Pid}}");
    dockerd.stop();
    agent.shows(&["Failed", "failed to reach Docker"]).await;
    dockerd.start(&["--live-restore"]).await;
    agent.shows(&["Running", "restarts: 0"]).await;
    assert_eq!(
        dockerd.inspect("web", "{{.State.Pid}}"),
        process,
        "it was started again"
    );

    // Without live-restore dockerd ends what it finds.
    dockerd.stop();
    agent.shows(&["Failed", "failed to reach Docker"]).await;
    dockerd.start(&[]).await;
    agent.shows(&["Running", "restarts: 1"]).await;
    dockerd.until_served(3550).await;
    agent.stop().await;
}
