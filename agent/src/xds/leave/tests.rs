use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::control_plane::fixtures::membership;

const SECOND: Duration = Duration::from_secs(1);
const BOTH: Registration = Registration {
    automatic: true,
    health_checked: true,
};

/// A VM that is in one cluster's endpoints, and leaves.
struct Leaving {
    xds: watch::Sender<XdsState>,
    hastened: watch::Sender<bool>,
    departure: watch::Receiver<Departure>,
    began: Instant,
    task: JoinHandle<Result<()>>,
    _drain: CancellationToken,
}

impl Leaving {
    #[expect(clippy::disallowed_methods, reason = "a test watches it from outside")]
    fn of(registration: Registration, xds: XdsState) -> Self {
        let (scope, drain) = Scope::detached();
        let (xds, hastened) = (watch::Sender::new(xds), watch::Sender::new(false));
        let publish = watch::Sender::default();
        let departure = publish.subscribe();
        let (sees, hears) = (xds.subscribe(), hastened.subscribe());
        let task = tokio::spawn(run(scope, move || registration, 2 * SECOND, sees, hears, publish));
        drain.cancel();
        Self {
            xds,
            hastened,
            departure,
            began: Instant::now(),
            task,
            _drain: drain,
        }
    }

    /// Waits for a step of the way, and tells the seconds that have passed.
    async fn until(&mut self, step: Departure) -> u64 {
        let reached = self.departure.wait_for(|departure| *departure == step);
        timeout(60 * SECOND, reached).await.expect("never gets there").unwrap();
        self.began.elapsed().as_secs()
    }

    /// The reason for which callers were not told, and the seconds until the drain.
    async fn ends(mut self) -> (Option<String>, u64) {
        timeout(60 * SECOND, self.task).await.unwrap().unwrap().unwrap();
        match self.departure.borrow_and_update().clone() {
            Departure::Over { unannounced } => (unannounced, self.began.elapsed().as_secs()),
            other => panic!("{other:?}"),
        }
    }
}

fn listed() -> XdsState {
    XdsState {
        connected_to: Some("istiod:15012".to_owned()),
        endpoints_heard: true,
        listed_in: ["outbound|3550||catalog.shop.svc.cluster.local".to_owned()].into(),
        ..XdsState::default()
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_waits_until_istiod_has_taken_the_vm_out_and_others_have_heard() {
    let mut leaving = Leaving::of(BOTH, listed());
    assert_eq!(leaving.until(Departure::Announced).await, 0);
    sleep(3 * SECOND).await;
    leaving.xds.send_modify(|state| state.listed_in.clear());
    assert_eq!(leaving.until(Departure::Propagating).await, 3);
    assert_eq!(leaving.ends().await, (None, 5));
}

#[tokio::test(start_paused = true)]
async fn leaving_of_a_vm_that_no_cluster_shows_waits_for_propagation_alone() {
    let hidden = XdsState {
        listed_in: [].into(),
        ..listed()
    };
    assert_eq!(Leaving::of(BOTH, hidden).ends().await, (None, 2));
}

#[tokio::test(start_paused = true)]
async fn leaving_right_after_a_take_over_waits_for_the_first_endpoints() {
    let unheard = XdsState {
        listed_in: [].into(),
        endpoints_heard: false,
        ..listed()
    };
    let mut leaving = Leaving::of(BOTH, unheard.clone());
    assert_eq!(leaving.until(Departure::Announced).await, 0);
    sleep(SECOND).await;
    leaving.xds.send_replace(listed());
    sleep(SECOND).await;
    leaving.xds.send_modify(|state| state.listed_in.clear());
    assert_eq!(leaving.until(Departure::Propagating).await, 2);
    // Envoy asks for none at all.
    assert_eq!(Leaving::of(BOTH, unheard).ends().await, (None, 7));
}

#[tokio::test(start_paused = true)]
async fn leaving_hangs_up_where_istiod_does_not_go_by_health() {
    let mut leaving = Leaving::of(BOTH, listed());
    assert_eq!(leaving.until(Departure::HungUp).await, 5);
    assert_eq!(leaving.until(Departure::Propagating).await, 15);
    let (told, seconds) = leaving.ends().await;
    assert_eq!((told, seconds), (None, 17));
    assert_eq!(grace(2 * SECOND), 17 * SECOND, "the part's grace");

    let unprobed = Registration {
        health_checked: false,
        ..BOTH
    };
    let mut leaving = Leaving::of(unprobed, listed());
    assert_eq!(leaving.until(Departure::HungUp).await, 0);
    assert_eq!(leaving.ends().await, (None, 12));
}

#[tokio::test(start_paused = true)]
async fn leaving_hardly_waits_when_istiod_can_not_be_told() {
    let unregistered = Registration {
        automatic: false,
        ..BOTH
    };
    let away = XdsState {
        connected_to: None,
        last_error: Some("connection refused".to_owned()),
        ..listed()
    };
    for (registration, xds, cause, waited) in [
        (unregistered, listed(), "WorkloadEntry", 0),
        (BOTH, away, "not reached", 1),
    ] {
        let (unannounced, seconds) = Leaving::of(registration, xds).ends().await;
        let unannounced = unannounced.unwrap();
        assert!(
            unannounced.contains(cause) && seconds == waited,
            "{unannounced}, {seconds} s"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn leaving_is_told_to_an_istiod_that_was_lost_a_moment_before() {
    let lost = XdsState {
        connected_to: None,
        last_error: Some("istiod closed the stream".to_owned()),
        ..listed()
    };
    let mut leaving = Leaving::of(BOTH, lost);
    sleep(SECOND).await;
    leaving.xds.send_replace(listed());
    assert_eq!(leaving.until(Departure::Announced).await, 1);
}

#[tokio::test(start_paused = true)]
async fn leaving_of_an_agent_that_has_just_taken_over_waits_for_istiod_and_not_for_long() {
    let mut leaving = Leaving::of(BOTH, XdsState::default());
    sleep(2 * SECOND).await;
    leaving.xds.send_replace(listed());
    assert_eq!(leaving.until(Departure::Announced).await, 2);

    let (unannounced, seconds) = Leaving::of(BOTH, XdsState::default()).ends().await;
    assert!(unannounced.unwrap().contains("not reached") && seconds == ISTIOD_TIMEOUT.as_secs());
}

#[tokio::test(start_paused = true)]
async fn leaving_is_cut_short_by_a_second_signal() {
    let leaving = Leaving::of(BOTH, listed());
    sleep(SECOND).await;
    leaving.hastened.send_replace(true);
    let (unannounced, seconds) = leaving.ends().await;
    assert!(unannounced.unwrap().contains("no time") && seconds == 1);
}

#[test]
fn registration_is_read_from_what_istiod_is_told() {
    let mut membership = membership();
    let neither = Registration {
        automatic: false,
        health_checked: false,
    };
    assert_eq!(Registration::of(&membership), neither);
    membership
        .env
        .insert("ISTIO_META_AUTO_REGISTER_GROUP".to_owned(), "catalog".to_owned());
    let fields = &mut membership.proxy_config.0;
    fields.insert(
        READINESS_PROBE.to_owned(),
        serde_json::json!({"tcpSocket": {"port": 3550}}),
    );
    assert_eq!(Registration::of(&membership), BOTH);
}
