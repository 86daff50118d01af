//! The workload against a real dockerd. Needs root, docker.io, busybox-static and iproute2, and says so.

#![expect(clippy::unwrap_used, reason = "a test that can't go on fails there")]

mod dockerd;

use std::time::Duration;

use istio_vm_agent::config::ContainerConfig;
use istio_vm_agent::facts::{ContainerState, EnvoyState, InterceptState};
use istio_vm_agent::supervise::Supervisor;
use istio_vm_agent::workload::{self, Options};
use tokio::sync::watch;

use dockerd::{Dockerd, PATIENCE};

const IMAGE: &str = "127.0.0.1:1/web:1";

fn config(dockerd: &Dockerd, extra: &str) -> ContainerConfig {
    let text = format!(
        "name = 'web'\nimage = '{IMAGE}'\nports = ['3550:8080']\nstop_timeout = '1s'\ndocker_socket = '{}'\n\
         command = ['/busybox', 'httpd', '-f', '-p', '8080', '-h', '/www']\n{extra}",
        dockerd.socket()
    );
    toml::from_str(&text).unwrap()
}

/// The workload's task, under a supervisor as in the agent. Dropped, it is as if killed.
struct Agent {
    supervisor: Supervisor,
    state: watch::Receiver<ContainerState>,
    _inputs: (watch::Sender<EnvoyState>, watch::Sender<InterceptState>),
}

impl Agent {
    async fn start(config: ContainerConfig) -> Self {
        let ready = EnvoyState::Ready {
            pid: 1,
            adopted: false,
            restarts: 0,
            successor: None,
        };
        let active = InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 9,
        };
        Self::start_with(config, ready, active).await
    }

    async fn start_with(config: ContainerConfig, envoy: EnvoyState, intercept: InterceptState) -> Self {
        let (envoy, envoy_rx) = watch::channel(envoy);
        let (intercept, intercept_rx) = watch::channel(intercept);
        let (publish, state) = watch::channel(ContainerState::default());
        let mut supervisor = Supervisor::default();
        supervisor.spawn("workload", PATIENCE, |scope| {
            workload::run(scope, Options { config }, envoy_rx, Some(intercept_rx), publish)
        });
        supervisor.newest_ready().await.unwrap();
        Self {
            supervisor,
            state,
            _inputs: (envoy, intercept),
        }
    }

    /// Waits for a state that Debug-prints with all `parts` in it.
    async fn shows(&mut self, parts: &[&str]) -> ContainerState {
        let seen = self.state.wait_for(|state| {
            let text = format!("{state:?}");
            parts.iter().all(|part| text.contains(part))
        });
        let seen = tokio::time::timeout(PATIENCE, seen)
            .await
            .map(|state| state.unwrap().clone());
        seen.unwrap_or_else(|_| panic!("never showed {parts:?}, but {:?}", *self.state.borrow()))
    }

    async fn stop(self) {
        self.supervisor.drain().await;
    }
}

#[tokio::test]
async fn a_container_is_made_kept_adopted_replaced_and_removed() {
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
    let plan = workload::plan(&config(&dockerd, "")).await.unwrap();
    assert_eq!(plan, None);
    let mut agent = Agent::start_with(config(&dockerd, ""), EnvoyState::Waiting, InterceptState::Absent).await;
    agent.shows(&["Running", &first[..12], "restarts: 0"]).await;
    assert_eq!(dockerd.inspect("web", "{{.State.Pid}}"), process, "it was disturbed");

    drop(agent);
    let mut agent = Agent::start(config(&dockerd, "env = { A = '1' }")).await;
    agent.shows(&["Running"]).await;
    dockerd.until_served(3550).await;
    assert_ne!(dockerd.inspect("web", "{{.Id}}"), first);
    assert_eq!(dockerd.containers(), "web");

    agent.stop().await;
    assert_eq!(dockerd.containers(), "");
}

#[tokio::test]
async fn a_container_lives_through_dockerds_restarts() {
    let mut dockerd = Dockerd::started(&["--live-restore"]).await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent.shows(&["Running"]).await;
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

#[tokio::test]
async fn somebody_elses_containers_are_never_touched() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    for name in ["web", "bystander"] {
        let made = dockerd.docker(&["run", "--detach", "--name", name, IMAGE, "/busybox", "sleep", "600"]);
        assert!(made.status.success(), "{made:?}");
    }
    let mut agent = Agent::start(config(&dockerd, "")).await;
    agent.shows(&["was not made by this agent", "docker rm -f web"]).await;
    assert!(workload::plan(&config(&dockerd, "")).await.is_err());
    agent.stop().await;
    let ours = ContainerConfig {
        name: "ours".to_owned(),
        ..config(&dockerd, "")
    };
    let mut agent = Agent::start(ours.clone()).await;
    agent.shows(&["Running"]).await;
    drop(agent);
    assert!(matches!(workload::offline(&ours).await, ContainerState::Running { .. }));

    workload::remove(&ours.docker_socket, Duration::from_secs(1))
        .await
        .unwrap();
    let mut left: Vec<String> = dockerd.containers().lines().map(str::to_owned).collect();
    left.sort();
    assert_eq!(left, ["bystander", "web"]);
    assert_eq!(dockerd.inspect("web", "{{.State.Running}}"), "true");
}
