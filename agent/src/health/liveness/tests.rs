//! Life and death of an application on loopback, in paused time.

use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::net::TcpListener;

use super::*;
use crate::config::ProbeConfig;
use crate::control_plane::fixtures;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

struct Life {
    service: watch::Sender<ServiceState>,
    state: watch::Receiver<LivenessState>,
    _others: (watch::Sender<ContainerState>, watch::Sender<Arc<Membership>>),
}

impl Life {
    fn start(startup: Option<&str>, liveness: Option<&str>) -> Self {
        let probe = |text: &str| toml::from_str::<ProbeConfig<3>>(text).unwrap().0;
        let options = Options {
            startup: startup.map(probe),
            liveness: liveness.map(probe),
            ports: Vec::new(),
            unit: None,
        };
        let membership = watch::Sender::new(Arc::new(Membership {
            instance_ips: vec![LOCALHOST],
            ..fixtures::membership()
        }));
        let (container, service) = (watch::Sender::default(), watch::Sender::default());
        let application = Application {
            container: container.subscribe(),
            service: service.subscribe(),
        };
        let (publish, state) = watch::channel(LivenessState::Starting);
        let task = run(
            Scope::detached().0,
            options,
            application,
            membership.subscribe(),
            publish,
        );
        Scope::detached().0.spawn(async move { task.await.unwrap() });
        Self {
            service,
            state,
            _others: (container, membership),
        }
    }

    fn runs(&self, pid: u32) {
        self.service.send_replace(ServiceState::Running {
            unit: "shop.service".to_owned(),
            pid,
            restarts: 0,
        });
    }

    async fn shows(&mut self, wanted: impl Fn(&LivenessState) -> bool) {
        self.state.wait_for(wanted).await.unwrap();
    }

    /// Waits for the next death, and returns its reason.
    async fn next_death(&mut self) -> String {
        loop {
            self.state.changed().await.unwrap();
            if let LivenessState::Failed { reason } = &*self.state.borrow_and_update() {
                return reason.clone();
            }
        }
    }
}

async fn reserved() -> (TcpListener, String) {
    let listener = TcpListener::bind((LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("tcp = {{ port = {port} }}\nperiod = '5s'"))
}

#[tokio::test(start_paused = true)]
async fn application_that_stops_answering_is_dead_after_three_tries_each_time() {
    let (listener, probe) = reserved().await;
    let mut life = Life::start(None, Some(&probe));
    life.runs(7);
    life.shows(|state| *state == LivenessState::Alive).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!(*life.state.borrow(), LivenessState::Alive);
    drop(listener);
    for _ in 0..2 {
        let began = Instant::now();
        let reason = life.next_death().await;
        assert!(
            reason.starts_with("the liveness probe fails: failed to connect"),
            "{reason}"
        );
        assert!(began.elapsed() > Duration::from_secs(9), "{:?}", began.elapsed());
    }
    // The next one is given all three tries again.
    life.runs(8);
    life.shows(|state| *state == LivenessState::Alive).await;
}

#[tokio::test(start_paused = true)]
async fn application_that_starts_is_asked_for_nothing_but_its_start() {
    let (listener, startup) = reserved().await;
    let (_never, liveness) = reserved().await;
    drop((listener, _never));
    let mut life = Life::start(Some(&startup), Some(&liveness));
    life.runs(7);
    let reason = life.next_death().await;
    assert!(reason.starts_with("the startup probe fails"), "{reason}");
    life.runs(8);
    life.shows(|state| *state == LivenessState::Starting).await;
}

#[tokio::test(start_paused = true)]
async fn application_that_answers_at_once_was_never_starting() {
    let (_listener, startup) = reserved().await;
    let mut life = Life::start(Some(&startup), None);
    life.runs(7);
    life.shows(|state| *state == LivenessState::Alive).await;
    life.runs(8);
    sleep(Duration::from_secs(60)).await;
    assert!(!life.state.has_changed().unwrap(), "{:?}", *life.state.borrow());
}
