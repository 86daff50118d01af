use std::collections::BTreeMap;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::spec::{DEFAULTS, DEFAULTS_NOW, SPEC};
use super::*;
use crate::config::{ContainerConfig, PathsConfig};
use crate::docker::MANAGED;
use crate::docker::fake::{Container, Docker};
use crate::facts::{ContainerState, EnvoyState, InterceptState, LivenessState, XdsState};
use crate::host::Host;
use crate::supervise::Scope;

mod offline;
mod replacing;
mod several;

const IMAGE: &str = "registry.example:5000/web:1";
/// An image without labels, which containers that are there are of.
const BASE: &str = "sha256:base";

fn config(docker: &Docker, extra: &str) -> ContainerConfig {
    let socket = docker.socket();
    let text = format!("name = 'web'\nimage = '{IMAGE}'\nstop_timeout = '7s'\ndocker_socket = {socket:?}\n{extra}",);
    toml::from_str(&text).unwrap()
}

/// The options of a container that is reached through Envoy alone.
pub(super) fn options(config: &ContainerConfig) -> Options {
    Options {
        host: Host::system(),
        paths: PathsConfig {
            run: "/nowhere".into(),
            ..PathsConfig::default()
        },
        workload: "container".to_owned(),
        others: Others::default(),
        config: config.clone(),
        publishes: false,
        judge: Judge::default(),
        propagation: Some(Duration::from_secs(2)),
    }
}

pub(super) fn container(name: &str, labels: &[(&str, &str)]) -> Container {
    Container {
        id: format!("{name:0>64}"),
        name: name.to_owned(),
        labels: labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect::<BTreeMap<_, _>>(),
        image: BASE.to_owned(),
        running: true,
        status: 0,
    }
}

/// A container as an earlier agent left it.
fn ours(name: &str, spec: &str) -> Container {
    container(name, &[(MANAGED, "true"), (SPEC, spec), (DEFAULTS, DEFAULTS_NOW)])
}

/// A container as the first version made it.
fn outdated(name: &str, spec: &str) -> Container {
    container(name, &[(MANAGED, "true"), (SPEC, spec)])
}

struct Agent {
    drain: CancellationToken,
    ended: watch::Receiver<Option<String>>,
    envoy: watch::Sender<EnvoyState>,
    intercept: watch::Sender<InterceptState>,
    xds: watch::Sender<XdsState>,
    liveness: watch::Sender<LivenessState>,
    called_at: watch::Sender<Option<IpAddr>>,
    state: watch::Receiver<ContainerState>,
}

impl Agent {
    /// Starts an agent whose Envoy is ready and whose rules are in.
    fn start(config: ContainerConfig) -> Self {
        let agent = Self::start_early(config);
        agent.envoy.send_replace(ready_envoy());
        agent.intercept.send_replace(active());
        agent
    }

    fn start_early(config: ContainerConfig) -> Self {
        let (scope, drain) = Scope::detached();
        let (envoy, envoy_rx) = watch::channel(EnvoyState::Waiting);
        let (intercept, intercept_rx) = watch::channel(InterceptState::Absent);
        let (publish, state) = watch::channel(ContainerState::default());
        let (end, ended) = watch::channel(None);
        let xds = watch::Sender::new(XdsState::default());
        let liveness = watch::Sender::new(LivenessState::default());
        let called_at = watch::Sender::default();
        let inputs = Inputs {
            envoy: envoy_rx,
            intercept: Some(intercept_rx),
            xds: xds.subscribe(),
            liveness: liveness.subscribe(),
            called_at: Some(called_at.subscribe()),
        };
        let task = run(scope, options(&config), inputs, publish);
        Scope::detached().0.spawn(async move {
            let result = Box::pin(task).await.map_err(|error| format!("{error:#}"));
            end.send_replace(Some(result.err().unwrap_or_default()));
        });
        Self {
            drain,
            ended,
            envoy,
            intercept,
            xds,
            liveness,
            called_at,
            state,
        }
    }

    /// Waits for a state that Debug-prints with `text` in it.
    async fn shows(&mut self, text: &str) -> ContainerState {
        let seen = self.state.wait_for(|state| format!("{state:?}").contains(text));
        let seen = tokio::time::timeout(Duration::from_secs(600), seen).await;
        seen.unwrap_or_else(|_| panic!("never showed {text:?}"))
            .unwrap()
            .clone()
    }

    /// Drains it and returns its error, empty for none.
    async fn stop(&mut self) -> String {
        self.drain.cancel();
        self.ended.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }
}

fn ready_envoy() -> EnvoyState {
    EnvoyState::Ready {
        pid: 1,
        adopted: false,
        restarts: 0,
        successor: None,
    }
}

fn active() -> InterceptState {
    InterceptState::Active {
        backend: "nftables".to_owned(),
        rules: 9,
        open_bridge: None,
    }
}

#[tokio::test(start_paused = true)]
async fn container_starts_only_behind_envoy_and_the_rules() {
    let docker = Docker::started();
    let mut agent = Agent::start_early(config(&docker, ""));
    agent.shows("Envoy").await;
    agent.envoy.send_replace(ready_envoy());
    agent.shows("interception rules").await;
    assert_eq!(docker.calls(), ["pull registry.example:5000/web 1"]);
    agent.intercept.send_replace(active());
    agent.shows("Running").await;
    assert_eq!(docker.calls()[1..], ["create web", "start web"]);
    assert_eq!(agent.stop().await, "");
    assert_eq!(docker.calls()[3..], ["stop web t=7", "remove web"]);
}

#[tokio::test(start_paused = true)]
async fn container_that_runs_as_configured_is_adopted_untouched() {
    let docker = Docker::started();
    let config = config(&docker, "");
    docker.edit(|engine| engine.containers.push(ours("web", &spec::hash(&config))));
    let mut agent = Agent::start_early(config);
    agent.shows("Running").await;
    assert_eq!(docker.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn container_that_was_there_and_stopped_is_started_again() {
    let docker = Docker::started();
    let config = config(&docker, "");
    let stopped = Container {
        running: false,
        ..ours("web", &spec::hash(&config))
    };
    docker.edit(|engine| engine.containers.push(stopped));
    let mut agent = Agent::start(config);
    let state = agent.shows("Running").await;
    let ContainerState::Running {
        restarts: 0, address, ..
    } = state
    else {
        panic!("{state:?}");
    };
    assert_eq!(address, "172.17.0.2".parse().ok());
    assert_eq!(docker.calls(), ["start web"]);
}

#[tokio::test(start_paused = true)]
async fn container_of_an_earlier_version_runs_on_and_its_next_start_gives_it_todays_rights() {
    let docker = Docker::started();
    let config = config(&docker, "");
    let right = spec::hash(&config);
    docker.edit(|engine| {
        engine.images.insert(IMAGE.to_owned());
        engine.containers.push(outdated("web", &right));
    });
    let mut agent = Agent::start(config.clone());
    agent.shows("outdated: true").await;
    assert_eq!(plan(&[options(&config)]).await.unwrap().changes, []);
    assert_eq!(docker.calls(), [""; 0]);
    docker.edit(|engine| engine.containers[0].running = false);
    agent.shows("outdated: false").await;
    assert_eq!(
        docker.calls(),
        ["stop web t=7", "remove web", "create web", "start web"]
    );
}

#[tokio::test(start_paused = true)]
async fn labels_that_an_image_gave_make_no_container_the_agents() {
    let docker = Docker::started();
    let config = config(&docker, "");
    let right = spec::hash(&config);
    docker.edit(|engine| {
        engine.images.insert(IMAGE.to_owned());
        // `docker commit` of ours, and a container of that image.
        let ours = ours("web", &right);
        engine
            .image_labels
            .insert("sha256:committed".to_owned(), ours.labels.clone());
        for name in ["web", "copy"] {
            engine.containers.push(Container {
                id: format!("{name:0>64}"),
                name: name.to_owned(),
                image: "sha256:committed".to_owned(),
                ..ours.clone()
            });
        }
        // An image may be made with them, too.
        let labels = BTreeMap::from([("io.istio.vm-agent.managed".to_owned(), "true".to_owned())]);
        engine.image_labels.insert("sha256:labelled".to_owned(), labels.clone());
        engine.containers.push(Container {
            labels,
            image: "sha256:labelled".to_owned(),
            ..container("third", &[])
        });
    });
    let mut agent = Agent::start(config.clone());
    let failed = format!("{:?}", agent.shows("Failed").await);
    assert!(failed.contains("was not made by this agent"), "{failed}");
    assert_eq!(agent.stop().await, "");
    remove(&config.docker_socket, config.stop_timeout).await.unwrap();
    assert_eq!(docker.calls(), [""; 0]);

    // One that the agent itself makes of such an image is the agent's.
    docker.edit(|engine| {
        engine.containers.clear();
        engine.image_labels.insert(IMAGE.to_owned(), ours("web", &right).labels);
    });
    let mut agent = Agent::start(config.clone());
    agent.shows("Running").await;
    assert_eq!(agent.stop().await, "");
    assert!(docker.edit(|engine| engine.containers.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn container_of_another_specification_or_name_is_replaced_once_the_image_is_here() {
    let docker = Docker::started();
    docker.edit(|engine| {
        engine
            .containers
            .extend([ours("web", "old"), ours("former-name", "old")]);
        engine.pull_error = Some("manifest unknown".to_owned());
    });
    let mut agent = Agent::start(config(&docker, ""));
    let failed = format!("{:?}", agent.shows("failed: Some").await);
    for part in [
        "Running",
        IMAGE,
        "from registry.example:5000",
        "check the tag or digest",
        "manifest unknown",
    ] {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    assert!(docker.edit(|engine| engine.containers.iter().all(|container| container.running)));

    docker.edit(|engine| {
        engine.pull_error = None;
        engine.calls.clear();
    });
    agent.shows("successor: None").await;
    let calls = docker.calls().into_iter().skip_while(|call| call.starts_with("pull"));
    assert_eq!(
        calls.collect::<Vec<_>>(),
        [
            "create web-next",
            "start web-next",
            "stop web t=7",
            "remove web",
            "rename web-next web",
            "stop former-name t=7",
            "remove former-name",
        ]
    );
    assert_eq!(agent.stop().await, "");
    assert!(docker.edit(|engine| engine.containers.is_empty()));
}

#[tokio::test(start_paused = true)]
async fn container_of_somebody_else_is_never_touched() {
    let docker = Docker::started();
    let config = config(&docker, "");
    docker.edit(|engine| {
        engine.images.insert(IMAGE.to_owned());
        engine.containers.push(container("web", &[]));
    });
    let mut agent = Agent::start(config.clone());
    let failed = format!("{:?}", agent.shows("Failed").await);
    assert!(
        failed.contains("was not made by this agent") && failed.contains("docker rm -f web"),
        "{failed}"
    );
    remove(&config.docker_socket, config.stop_timeout).await.unwrap();
    assert_eq!(agent.stop().await, "");
    assert_eq!(docker.calls(), [""; 0]);

    let mut agent = Agent::start(config);
    agent.shows("Failed").await;
    docker.edit(|engine| engine.containers.clear());
    agent.shows("Running").await;
}

#[tokio::test(start_paused = true)]
async fn container_that_dies_is_started_again() {
    let docker = Docker::started();
    let mut agent = Agent::start(config(&docker, ""));
    agent.shows("Running").await;
    docker.edit(|engine| {
        engine.containers[0].running = false;
        engine.containers[0].status = 137;
    });
    let failed = format!("{:?}", agent.shows("Failed").await);
    assert!(
        failed.contains("exited with status 137 (see `docker logs web`)"),
        "{failed}"
    );
    agent.shows("restarts: 1").await;
    docker.edit(|engine| engine.containers.clear());
    assert!(format!("{:?}", agent.shows("Failed").await).contains("web was removed"));
    agent.shows("restarts: 2").await;
    assert_eq!(docker.calls()[3..], ["start web", "create web", "start web"]);
}

#[tokio::test(start_paused = true)]
async fn container_that_its_probe_finds_dead_is_started_again() {
    let docker = Docker::started();
    let mut agent = Agent::start(config(&docker, ""));
    agent.shows("restarts: 0").await;
    for restarts in ["restarts: 1", "restarts: 2"] {
        agent.liveness.send_replace(LivenessState::Failed {
            reason: "the liveness probe fails: no answer within 1s".to_owned(),
        });
        agent
            .shows("was stopped, to be started again: the liveness probe fails")
            .await;
        agent.shows(restarts).await;
        // What was said of the one before is none of its business.
        tokio::time::sleep(Duration::from_secs(600)).await;
    }
    let again = ["stop web t=7", "start web"];
    assert_eq!(docker.calls()[3..], [again, again].concat());
}

#[tokio::test(start_paused = true)]
async fn dockerd_may_come_late_and_go_away() {
    let mut docker = Docker::stopped();
    let mut agent = Agent::start(config(&docker, ""));
    let failed = format!("{:?}", agent.shows("Failed").await);
    assert!(
        failed.contains("failed to reach Docker at") && failed.contains("docker.service"),
        "{failed}"
    );
    docker.start();
    agent.shows("restarts: 0").await;
    let calls = docker.calls();

    docker.stop();
    agent.shows("failed to reach Docker").await;
    docker.start();
    agent.shows("restarts: 0").await;
    assert_eq!(docker.calls(), calls, "it ran on and was found again");

    docker.stop();
    assert!(agent.stop().await.contains("failed to reach Docker"));
}

#[tokio::test(start_paused = true)]
async fn image_that_is_here_is_not_pulled() {
    let digest = format!("registry.example/web@sha256:{}", "0".repeat(64));
    let docker = Docker::started();
    let mut config = config(&docker, "");
    config.image.clone_from(&digest);
    let mut agent = Agent::start(config.clone());
    agent.shows("Running").await;
    assert_eq!(docker.calls()[0], format!("pull {digest} "));
    agent.stop().await;
    docker.edit(|engine| engine.calls.clear());
    let mut agent = Agent::start(config);
    agent.shows("Running").await;
    assert_eq!(docker.calls(), ["create web", "start web"]);
}

#[tokio::test(start_paused = true)]
async fn private_registry_is_shown_the_configured_login() {
    let docker = Docker::started();
    let root = tempfile::tempdir().unwrap();
    let login = root.path().join("config.json");
    let text = r#"{ "auths": { "registry.example:5000": { "auth": "bWU6aHVudGVyMg==" } } }"#;
    std::fs::write(&login, text).unwrap();
    std::fs::set_permissions(&login, PermissionsExt::from_mode(0o600)).unwrap();
    let config = config(&docker, &format!("registry_config = {login:?}"));
    let mut agent = Agent::start(config);
    agent.shows("Running").await;
    let shown = docker.edit(|engine| engine.login.clone()).unwrap();
    assert!(
        shown.contains("\"username\":\"me\"") && shown.contains("hunter2"),
        "{shown}"
    );
    std::fs::remove_file(&login).unwrap();
    docker.edit(|engine| {
        engine.containers.clear();
        engine.images.clear();
    });
    let failed = format!("{:?}", agent.shows("config.json is not there").await);
    assert!(failed.contains("Failed"), "{failed}");
}

#[tokio::test(start_paused = true)]
async fn container_that_runs_and_serves_nobody_is_told() {
    let docker = Docker::started();
    let mut agent = Agent::start(config(&docker, ""));
    agent.shows("trouble: None").await;
    let calls = docker.calls();
    docker.edit(|engine| engine.paused = true);
    agent.shows("`docker unpause web`").await;
    docker.edit(|engine| {
        engine.paused = false;
        engine.health.insert("web".to_owned(), "unhealthy");
    });
    agent.shows("HEALTHCHECK of its image fails").await;
    docker.edit(|engine| engine.health.insert("web".to_owned(), "healthy"));
    agent.shows("trouble: None").await;
    assert_eq!(docker.calls(), calls, "it was touched");
}

#[tokio::test(start_paused = true)]
async fn drain_ends_every_wait() {
    let docker = Docker::started();
    let mut agent = Agent::start_early(config(&docker, ""));
    agent.shows("Envoy").await;
    assert_eq!(agent.stop().await, "");
    let nothing = Docker::stopped();
    let mut agent = Agent::start(config(&nothing, ""));
    agent.shows("Failed").await;
    assert!(agent.stop().await.contains("failed to reach Docker"));
}
