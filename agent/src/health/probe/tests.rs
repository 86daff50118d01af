use std::net::{IpAddr, Ipv4Addr};
use std::time::SystemTime;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::ProbeConfig;
use crate::control_plane::fixtures;
use crate::facts::{Successor, fixtures::running};

mod exec;
mod network;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn membership() -> Arc<Membership> {
    Arc::new(Membership {
        instance_ips: vec![LOCALHOST],
        ..fixtures::membership()
    })
}

fn probe(text: &str) -> Probe {
    toml::from_str::<ProbeConfig>(text).unwrap().0
}

fn options(probe: Probe) -> Options {
    Options {
        probe,
        refused: None,
        unit: None,
        resumes: false,
        counts: ProbeCounts::default(),
    }
}

/// One probe, as the loop does it.
async fn ask_once(text: &str) -> Result<(), String> {
    ask_with(options(probe(text))).await
}

async fn ask_with(options: Options) -> Result<(), String> {
    ask(&options, &options.probe, Place::Vm(Some(LOCALHOST))).await
}

#[test]
fn last_probe_is_kept_with_its_failure() {
    let counts = ProbeCounts::default();
    let failure = || counts.last.borrow().clone().unwrap().failure;
    let _ = counted(Err("refused".to_owned()), &counts);
    assert_eq!(failure().as_deref(), Some("refused"));
    let _ = counted(Ok(()), &counts);
    assert_eq!(failure(), None);
}

#[tokio::test]
async fn command_that_the_operator_does_not_allow_is_not_run_and_no_sign_of_health() {
    let trace = tempfile::tempdir().unwrap();
    let file = trace.path().join("ran");
    let text = format!("exec = {{ command = ['touch', {:?}] }}", file.display().to_string());
    let refused = Options {
        refused: Some("not allowed"),
        ..options(probe(&text))
    };
    assert_eq!(ask_with(refused).await, Err("not allowed".to_owned()));
    assert!(!file.exists());
}

fn ready() -> EnvoyState {
    envoy(1)
}

fn envoy(pid: u32) -> EnvoyState {
    EnvoyState::Ready {
        pid,
        adopted: false,
        restarts: 0,
        successor: None,
    }
}

struct Loop {
    drain: CancellationToken,
    envoy: watch::Sender<EnvoyState>,
    state: watch::Receiver<ProbeState>,
    liveness: watch::Sender<LivenessState>,
    container: watch::Sender<ContainerState>,
    _membership: watch::Sender<Arc<Membership>>,
}

impl Loop {
    fn start(probe: Probe) -> Self {
        Self::start_with(options(probe), Vec::new())
    }

    /// With a container that publishes these ports.
    fn start_with(options: Options, ports: Vec<PortMapping>) -> Self {
        let (scope, drain) = Scope::detached();
        let (envoy, envoy_rx) = watch::channel(EnvoyState::Waiting);
        let (membership, membership_rx) = watch::channel(membership());
        let (publish, state) = watch::channel(ProbeState::default());
        let liveness = watch::Sender::new(LivenessState::default());
        let container = watch::Sender::new(ContainerState::default());
        let facts = Facts {
            membership: membership_rx,
            envoy: envoy_rx,
            liveness: vec![liveness.subscribe()],
            containers: vec![(ports, container.subscribe())],
        };
        let task = run(scope.clone(), options, facts, publish);
        scope.spawn(async move { task.await.unwrap() });
        Self {
            drain,
            envoy,
            state,
            liveness,
            container,
            _membership: membership,
        }
    }

    /// Waits for the next state and returns it with the time it took.
    async fn next(&mut self) -> (ProbeState, Duration) {
        let began = Instant::now();
        self.state.changed().await.unwrap();
        (self.state.borrow_and_update().clone(), began.elapsed())
    }
}

fn unhealthy(state: &ProbeState, with: &str) -> bool {
    matches!(state, ProbeState::Unhealthy { reason } if reason.contains(with))
}

#[tokio::test(start_paused = true)]
async fn verdict_follows_the_application_and_envoy() {
    const PERIOD: Duration = Duration::from_secs(10);
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut health = Loop::start(probe(&format!(
        "tcp = {{ port = {} }}\ninitial_delay = '3s'",
        address.port()
    )));
    let began = Instant::now();
    health.state.wait_for(|state| unhealthy(state, NO_ENVOY)).await.unwrap();
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    health.envoy.send_replace(ready());
    let (state, took) = health.next().await;
    assert_eq!(state, ProbeState::Healthy);
    assert!(took < FIRST_PERIOD, "Envoy's coming is no reason to wait: {took:?}");

    drop(listener);
    let (state, took) = health.next().await;
    assert!(unhealthy(&state, "failed to connect to 127.0.0.1:"), "{state:?}");
    assert!(took <= PERIOD, "{took:?}");
    let _listener = TcpListener::bind(address).await.unwrap();
    let (state, took) = health.next().await;
    assert_eq!(state, ProbeState::Healthy);
    assert!(took > FIRST_PERIOD && took <= PERIOD, "{took:?}");

    health.envoy.send_replace(EnvoyState::Waiting);
    assert!(unhealthy(&health.next().await.0, NO_ENVOY));
    health.envoy.send_replace(ready());
    let (state, took) = health.next().await;
    assert_eq!((state, took < FIRST_PERIOD), (ProbeState::Healthy, true), "{took:?}");
    health.drain.cancel();
    assert!(health.state.changed().await.is_err(), "it goes on after the drain");
}

#[tokio::test(start_paused = true)]
async fn application_that_comes_up_is_seen_at_once() {
    let reserved = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let address = reserved.local_addr().unwrap();
    drop(reserved);
    let mut health = Loop::start(probe(&format!("tcp = {{ port = {} }}\nperiod = '60s'", address.port())));
    health.envoy.send_replace(ready());
    health
        .state
        .wait_for(|state| unhealthy(state, "connect"))
        .await
        .unwrap();
    let _listener = TcpListener::bind(address).await.unwrap();
    let (state, took) = health.next().await;
    assert_eq!((state, took <= FIRST_PERIOD), (ProbeState::Healthy, true), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn application_that_has_not_started_is_not_asked() {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut health = Loop::start(probe(&format!("tcp = {{ port = {port} }}")));
    health.liveness.send_replace(LivenessState::Starting);
    health.envoy.send_replace(ready());
    health
        .state
        .wait_for(|state| unhealthy(state, NOT_ALIVE))
        .await
        .unwrap();
    health.liveness.send_replace(LivenessState::Alive);
    let (state, took) = health.next().await;
    assert_eq!((state, took < FIRST_PERIOD), (ProbeState::Healthy, true), "{took:?}");
    // One that is to be started again is unhealthy at once.
    let reason = "the liveness probe fails".to_owned();
    health.liveness.send_replace(LivenessState::Failed { reason });
    assert!(unhealthy(&health.next().await.0, NOT_ALIVE));
}

fn is_judged(state: &ProbeState) -> bool {
    matches!(state, ProbeState::Healthy | ProbeState::Unhealthy { .. })
}

/// A probe of a container that answers, whose port of the VM answers nobody; with the container's listener.
async fn dropped_on_the_vm(resumes: bool) -> (Loop, TcpListener) {
    let reserved = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = reserved.local_addr().unwrap().port();
    drop(reserved);
    let address = IpAddr::from([127, 0, 0, 2]);
    let inside = TcpListener::bind((address, 0)).await.unwrap();
    let ports = format!("{port}:{}", inside.local_addr().unwrap().port());
    let options = Options {
        resumes,
        ..options(probe(&format!("tcp = {{ port = {port} }}")))
    };
    let health = Loop::start_with(options, vec![ports.parse().unwrap()]);
    let container = running(Some(address), ProbeState::NotConfigured);
    health.container.send_replace(container);
    (health, inside)
}

#[tokio::test(start_paused = true)]
async fn container_is_asked_itself_before_an_envoy_that_takes_over_makes_it_unhealthy() {
    let (mut health, _inside) = dropped_on_the_vm(false).await;
    health.envoy.send_replace(EnvoyState::Ready {
        pid: 1,
        adopted: false,
        restarts: 0,
        successor: Some(Successor {
            since: SystemTime::UNIX_EPOCH,
            failed: None,
            lacks: None,
        }),
    });
    health.state.wait_for(is_judged).await.unwrap();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*health.state.borrow_and_update(), ProbeState::Healthy);
    // One that serves alone speaks for the application.
    health.envoy.send_replace(envoy(2));
    let began = Instant::now();
    assert!(unhealthy(&health.next().await.0, "failed to connect to 127.0.0.1:"));
    assert!(began.elapsed() > FIRST_PERIOD, "the first one was asked once");
}

#[tokio::test(start_paused = true)]
async fn first_probe_of_an_agent_that_takes_over_is_asked_again() {
    for resumes in [true, false] {
        let (mut health, _inside) = dropped_on_the_vm(resumes).await;
        health.envoy.send_replace(ready());
        let state = health.state.wait_for(is_judged).await.unwrap();
        assert_eq!(*state == ProbeState::Healthy, resumes, "{state:?}");
    }
}
