//! The workload's task, as the agent runs it.

use std::path::Path;

use istio_vm_agent::config::{ContainerConfig, PathsConfig};
use istio_vm_agent::facts::{ContainerState, EnvoyState, InterceptState, LivenessState, XdsState};
use istio_vm_agent::host::Host;
use istio_vm_agent::supervise::Supervisor;
use istio_vm_agent::workload::{self, Inputs, Judge, Options, Others};
use kit::PATIENCE;
use tokio::sync::watch;

use crate::dockerd::Dockerd;

pub(crate) const IMAGE: &str = "127.0.0.1:1/web:1";

pub(crate) fn config(dockerd: &Dockerd, extra: &str) -> ContainerConfig {
    let text = format!(
        "name = 'web'\nimage = '{IMAGE}'\nports = ['3550:8080']\nstop_timeout = '1s'\ndocker_socket = '{}'\n\
         command = ['/busybox', 'httpd', '-f', '-p', '8080', '-h', '/www']\n{extra}",
        dockerd.socket()
    );
    toml::from_str(&text).unwrap()
}

/// A container whose ports Docker publishes; the agent's files are beside dockerd's.
pub(crate) fn options(config: ContainerConfig) -> Options {
    let beside = Path::new(&config.docker_socket).parent().unwrap();
    Options {
        host: Host::system(),
        paths: PathsConfig {
            run: beside.join("run"),
            ..PathsConfig::default()
        },
        workload: "container".to_owned(),
        others: Others::default(),
        config,
        publishes: true,
        judge: Judge::default(),
        propagation: None,
    }
}

/// The workload's task, under a supervisor as in the agent. Dropped, it is as if killed.
pub(crate) struct Agent {
    supervisor: Supervisor,
    state: watch::Receiver<ContainerState>,
    _inputs: (watch::Sender<EnvoyState>, watch::Sender<InterceptState>),
}

impl Agent {
    pub(crate) async fn start(config: ContainerConfig) -> Self {
        Self::start_as(options(config)).await
    }

    pub(crate) async fn start_as(options: Options) -> Self {
        let ready = EnvoyState::Ready {
            pid: 1,
            adopted: false,
            restarts: 0,
            successor: None,
        };
        let active = InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 9,
            open_bridge: None,
        };
        Self::start_with(options, ready, active).await
    }

    pub(crate) async fn start_with(options: Options, envoy: EnvoyState, intercept: InterceptState) -> Self {
        let (envoy, envoy_rx) = watch::channel(envoy);
        let (intercept, intercept_rx) = watch::channel(intercept);
        let (publish, state) = watch::channel(ContainerState::default());
        let mut supervisor = Supervisor::default();
        let inputs = Inputs {
            envoy: envoy_rx,
            intercept: Some(intercept_rx),
            xds: watch::Sender::new(XdsState::default()).subscribe(),
            liveness: watch::Sender::new(LivenessState::default()).subscribe(),
            called_at: None,
        };
        supervisor.spawn("workload", PATIENCE, |scope| {
            workload::run(scope, options, inputs, publish)
        });
        supervisor.newest_ready().await.unwrap();
        Self {
            supervisor,
            state,
            _inputs: (envoy, intercept),
        }
    }

    /// Waits for a state that Debug-prints with all `parts` in it.
    pub(crate) async fn shows(&mut self, parts: &[&str]) -> ContainerState {
        let seen = self.state.wait_for(|state| {
            let text = format!("{state:?}");
            parts.iter().all(|part| text.contains(part))
        });
        let seen = tokio::time::timeout(PATIENCE, seen)
            .await
            .map(|state| state.unwrap().clone());
        seen.unwrap_or_else(|_| panic!("never showed {parts:?}, but {:?}", *self.state.borrow()))
    }

    pub(crate) async fn stop(self) {
        self.supervisor.drain().await;
    }
}

/// Another agent in place of one that is killed.
pub(crate) async fn again(agent: Agent, config: ContainerConfig) -> Agent {
    drop(agent);
    Agent::start(config).await
}
