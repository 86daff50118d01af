//! The workload against a real dockerd. Needs root, docker.io, busybox-static and iproute2, and says so.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test has processes and files of its own, and fails where it can't go on"
)]

mod dockerd;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use istio_vm_agent::config::{ContainerConfig, PathsConfig};
use istio_vm_agent::facts::{ContainerState, EnvoyState, InterceptState, LivenessState, XdsState};
use istio_vm_agent::host::Host;
use istio_vm_agent::supervise::Supervisor;
use istio_vm_agent::workload::{self, Inputs, Judge, Options};
use tokio::sync::watch;

use dockerd::{Dockerd, STEP_TIMEOUT};

const IMAGE: &str = "127.0.0.1:1/web:1";

fn config(dockerd: &Dockerd, extra: &str) -> ContainerConfig {
    let text = format!(
        "name = 'web'\nimage = '{IMAGE}'\nports = ['3550:8080']\nstop_timeout = '1s'\ndocker_socket = '{}'\n\
         command = ['/busybox', 'httpd', '-f', '-p', '8080', '-h', '/www']\n{extra}",
        dockerd.socket()
    );
    toml::from_str(&text).unwrap()
}

/// A container whose ports Docker publishes; the agent's files are beside dockerd's.
fn options(config: ContainerConfig) -> Options {
    let beside = Path::new(&config.docker_socket).parent().unwrap();
    Options {
        host: Host::system(),
        paths: PathsConfig {
            run: beside.join("run"),
            ..PathsConfig::default()
        },
        config,
        publishes: true,
        judge: Judge::default(),
        propagation: None,
    }
}

/// The workload's task, under a supervisor as in the agent. Dropped, it is as if killed.
struct Agent {
    supervisor: Supervisor,
    state: watch::Receiver<ContainerState>,
    _inputs: (watch::Sender<EnvoyState>, watch::Sender<InterceptState>),
}

impl Agent {
    async fn start(config: ContainerConfig) -> Self {
        Self::start_as(options(config)).await
    }

    async fn start_as(options: Options) -> Self {
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
        Self::start_with(options, ready, active).await
    }

    async fn start_with(options: Options, envoy: EnvoyState, intercept: InterceptState) -> Self {
        let (envoy, envoy_rx) = watch::channel(envoy);
        let (intercept, intercept_rx) = watch::channel(intercept);
        let (publish, state) = watch::channel(ContainerState::default());
        let mut supervisor = Supervisor::default();
        let inputs = Inputs {
            envoy: envoy_rx,
            intercept: Some(intercept_rx),
            xds: watch::Sender::new(XdsState::default()).subscribe(),
            liveness: watch::Sender::new(LivenessState::default()).subscribe(),
        };
        supervisor.spawn("workload", STEP_TIMEOUT, |scope| {
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
    async fn shows(&mut self, parts: &[&str]) -> ContainerState {
        let seen = self.state.wait_for(|state| {
            let text = format!("{state:?}");
            parts.iter().all(|part| text.contains(part))
        });
        let seen = tokio::time::timeout(STEP_TIMEOUT, seen)
            .await
            .map(|state| state.unwrap().clone());
        seen.unwrap_or_else(|_| panic!("never showed {parts:?}, but {:?}", *self.state.borrow()))
    }

    async fn stop(self) {
        self.supervisor.drain().await;
    }
}

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
    let plan = workload::plan(&options(config(&dockerd, ""))).await.unwrap();
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
    assert!(workload::plan(&options(config(&dockerd, ""))).await.is_err());
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

/// Capabilities by their bits (capabilities(7), linux/capability.h).
const SETGID: u32 = 6;
const NET_RAW: u32 = 13;

#[tokio::test]
async fn container_has_no_more_rights_than_a_server_needs() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let mut agent = Agent::start(config(&dockerd, "memory = '64m'\ncpus = 0.5\npids_limit = 77")).await;
    agent.shows(&["Running", "outdated: false"]).await;
    dockerd.until_served(3550).await;
    let has = |bit: u32| effective(&dockerd) & (1 << bit) != 0;
    assert!(!has(NET_RAW) && has(SETGID), "{:x}", effective(&dockerd));
    assert_eq!(status(&dockerd, "NoNewPrivs:"), "1");
    for (template, expected) in [
        ("{{.HostConfig.Memory}}", "67108864"),
        ("{{.HostConfig.NanoCpus}}", "500000000"),
        ("{{.HostConfig.PidsLimit}}", "77"),
        (
            "{{.HostConfig.LogConfig}}",
            "{json-file map[max-file:2 max-size:52428800]}",
        ),
    ] {
        assert_eq!(dockerd.inspect("web", template), expected, "{template}");
    }

    let mut agent = again(
        agent,
        config(&dockerd, "cap_add = ['NET_RAW']\nno_new_privileges = false"),
    )
    .await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    assert!(effective(&dockerd) & (1 << NET_RAW) != 0);
    assert_eq!(status(&dockerd, "NoNewPrivs:"), "0");
    agent.stop().await;
}

/// The keys of a container that has something of all, in files that `file` writes.
fn given(file: impl Fn(&str, &str) -> String) -> String {
    let (secret, variables, data) = (
        file("key", "hunter2"),
        file("app.env", "A=file\n"),
        file("data", "there"),
    );
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o644)).unwrap();
    format!(
        "env_files = [{variables:?}]\nsecrets = [{secret:?}]\nmounts = ['{data}:/data:ro']\ntmpfs = ['/tmp']\nuser = '4711'\n\
         read_only = true\nlabels = {{ team = 'shop' }}\nstop_signal = 'SIGKILL'\nulimits = {{ nofile = '100:200' }}\n"
    )
}

#[tokio::test]
async fn container_is_given_files_and_secrets_and_new_limits_while_it_runs() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path.display().to_string()
    };
    let more = given(file);
    let mut agent = Agent::start(config(&dockerd, &more)).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(3550).await;
    let inside = |script: &str| {
        let output = dockerd.docker(&["exec", "web", "/busybox", "sh", "-c", script]);
        String::from_utf8(output.stdout).unwrap()
    };
    let script = "cat /run/secrets/key /data; echo -n \" $A $(/busybox id -u) \"; \
                  /busybox touch /tmp/x && echo -n tmp; /busybox touch /x || echo -n ' read-only'";
    assert_eq!(
        inside(&script.replace("cat", "/busybox cat")),
        "hunter2there file 4711 tmp read-only"
    );
    // By the engine's word and not by `ulimit` inside: runc's own runtime may raise a soft limit of an `exec` it races with.
    assert_eq!(
        dockerd.inspect("web", "{{json .HostConfig.Ulimits}}"),
        "[{\"Name\":\"nofile\",\"Hard\":200,\"Soft\":100}]"
    );
    let told = dockerd.inspect("web", "{{json .}}");
    assert!(
        !told.contains("hunter2") && told.contains("\"team\":\"shop\""),
        "{told}"
    );

    // A secret that has changed, and limits, need no other container.
    let (id, process) = (
        dockerd.inspect("web", "{{.Id}}"),
        dockerd.inspect("web", "{{.State.Pid}}"),
    );
    file("key", "hunter3");
    for (limits, memory) in [
        ("memory = '64m'\npids_limit = 9", "67108864"),
        ("memory = '256m'", "268435456"),
    ] {
        let mut next = again(agent, config(&dockerd, &format!("{more}{limits}"))).await;
        next.shows(&["Running", "successor: None"]).await;
        assert_eq!(dockerd.inspect("web", "{{.HostConfig.Memory}}"), memory);
        assert_eq!(
            dockerd.inspect("web", "{{.State.Pid}}"),
            process,
            "it was started again"
        );
        agent = next;
    }
    assert_eq!(inside("/busybox cat /run/secrets/key"), "hunter3");
    // Docker takes no limit away.
    let mut agent = again(agent, config(&dockerd, &more)).await;
    agent.shows(&["Running", "successor: None"]).await;
    assert_ne!(dockerd.inspect("web", "{{.Id}}"), id);
    assert_eq!(dockerd.inspect("web", "{{.HostConfig.Memory}}"), "0");
    agent.stop().await;
    let run = Path::new(&dockerd.socket()).with_file_name("run");
    assert!(!run.join("secrets").exists());
}

#[tokio::test]
async fn another_container_runs_beside_the_former_until_it_is_well() {
    let dockerd = Dockerd::started(&[]).await;
    dockerd.import(IMAGE);
    let unpublished = |extra: &str| Options {
        publishes: false,
        ..options(config(&dockerd, extra))
    };
    let mut agent = Agent::start_as(unpublished("")).await;
    agent.shows(&["Running", "172.17.0.2"]).await;
    let first = dockerd.inspect("web", "{{.Id}}");
    drop(agent);

    // Nothing of this namespace is reached from here: what can be asked is the image's HEALTHCHECK.
    let check = "HEALTHCHECK --interval=100ms CMD [\"/busybox\", \"test\", \"-e\", \"/www/well\"]";
    dockerd.import_as("127.0.0.1:1/next:1", "", &[check]);
    let next = "image = '127.0.0.1:1/next:1'\nports = []\n";
    let next = |extra: &str| {
        let config = config(&dockerd, extra);
        let own: ContainerConfig = toml::from_str(&format!("name = 'web'\n{next}")).unwrap();
        Options {
            publishes: false,
            ..options(ContainerConfig {
                image: own.image,
                ports: own.ports,
                ..config
            })
        }
    };
    let mut agent = Agent::start_as(next("startup_timeout = '1s'")).await;
    agent
        .shows(&["Running", &first[..12], "rolled back", "HEALTHCHECK"])
        .await;
    assert_eq!(dockerd.containers(), "web");
    assert_eq!(dockerd.inspect("web", "{{.Id}}"), first);
    drop(agent);

    let mut agent = Agent::start_as(next("")).await;
    agent.shows(&["Running", &first[..12], "it is not well yet"]).await;
    dockerd
        .until_container("web-next", |dockerd| {
            dockerd
                .docker(&["exec", "web-next", "/busybox", "touch", "/www/well"])
                .status
                .success()
        })
        .await;
    agent.shows(&["172.17.0.3", "successor: None"]).await;
    assert_eq!(dockerd.containers(), "web");
    assert_ne!(dockerd.inspect("web", "{{.Id}}"), first);
    agent.stop().await;
}

/// Another agent in place of one that is killed.
async fn again(agent: Agent, config: ContainerConfig) -> Agent {
    drop(agent);
    Agent::start(config).await
}

/// A line of the status of the container's process.
fn status(dockerd: &Dockerd, line: &str) -> String {
    let pid = dockerd.inspect("web", "{{.State.Pid}}");
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|it| it.strip_prefix(line)).unwrap();
    line.trim().to_owned()
}

fn effective(dockerd: &Dockerd) -> u64 {
    u64::from_str_radix(&status(dockerd, "CapEff:"), 16).unwrap()
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
async fn container_is_never_envoy_on_the_vms_own_network() {
    let dockerd = Dockerd::started(&[]).await;
    let host = |name: &str| {
        let text = format!(
            "name = 'web'\nimage = '{name}'\nnetwork = 'host'\nstop_timeout = '1s'\ndocker_socket = '{}'\n\
             command = ['/busybox', 'httpd', '-f', '-p', '8080', '-h', '/www']",
            dockerd.socket()
        );
        toml::from_str::<ContainerConfig>(&text).unwrap()
    };
    let users = "root:x:0:0::/:/busybox\nproxy:x:1337:0::/:/busybox\nmesh:x:1000:1337::/:/busybox\n";
    for (image, user) in [
        ("number:1", "1337"),
        ("group:1", "0:1337"),
        ("name:1", "proxy"),
        ("primary:1", "mesh"),
    ] {
        dockerd.import_as(image, users, &[&format!("USER {user}")]);
        let mut agent = Agent::start(host(image)).await;
        agent.shows(&["Failed", "would run as user", "1337"]).await;
        assert_eq!(dockerd.inspect("web", "{{.State.Status}}"), "created");
        agent.stop().await;
    }
    dockerd.import_as("root:1", users, &[]);
    let mut agent = Agent::start(host("root:1")).await;
    agent.shows(&["Running", "successor: None"]).await;
    dockerd.until_served(8080).await;
    assert_eq!(effective(&dockerd) & (1 << SETGID), 0, "it could become Envoy");
    agent.stop().await;
}
