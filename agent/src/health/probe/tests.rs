use std::net::{IpAddr, Ipv4Addr};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::config::ProbeConfig;
use crate::control_plane::fixtures;

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
        counts: ProbeCounts::default(),
    }
}

/// One probe, as the loop does it.
async fn ask_once(text: &str) -> Result<(), String> {
    let (_publisher, membership) = watch::channel(membership());
    ask(&options(probe(text)), &membership).await
}

#[tokio::test]
async fn what_the_operator_does_not_allow_is_not_run_and_no_sign_of_health() {
    let trace = tempfile::tempdir().unwrap();
    let file = trace.path().join("ran");
    let (_publisher, membership) = watch::channel(membership());
    let text = format!("exec = {{ command = ['touch', {:?}] }}", file.display().to_string());
    let refused = Options {
        refused: Some("not allowed"),
        ..options(probe(&text))
    };
    assert_eq!(ask(&refused, &membership).await, Err("not allowed".to_owned()));
    assert!(!file.exists());
}

fn ready() -> EnvoyState {
    EnvoyState::Ready {
        pid: 1,
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
    _membership: watch::Sender<Arc<Membership>>,
}

impl Loop {
    fn start(probe: Probe) -> Self {
        let (scope, drain) = Scope::detached();
        let (envoy, envoy_rx) = watch::channel(EnvoyState::Waiting);
        let (membership, membership_rx) = watch::channel(membership());
        let (publish, state) = watch::channel(ProbeState::default());
        let liveness = watch::Sender::new(LivenessState::default());
        let facts = Facts {
            membership: membership_rx,
            envoy: envoy_rx,
            liveness: vec![liveness.subscribe()],
        };
        let task = run(scope.clone(), options(probe), facts, publish);
        scope.spawn(async move { task.await.unwrap() });
        Self {
            drain,
            envoy,
            state,
            liveness,
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
