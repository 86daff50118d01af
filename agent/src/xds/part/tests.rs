use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn at() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_231_431)
}

fn connected() -> XdsState {
    XdsState {
        connected_to: Some("istiod:15012 (10.0.0.1)".to_owned()),
        since: Some(at()),
        envoy_connected: true,
        names: Some(3),
        last_push: Some(at()),
        ..XdsState::default()
    }
}

fn serving() -> EnvoyState {
    EnvoyState::Ready {
        pid: 7,
        adopted: false,
        restarts: 0,
        successor: None,
    }
}

fn refused(message: &str) -> XdsState {
    XdsState {
        nacks: vec![Nack {
            kind: "Listener".to_owned(),
            message: message.to_owned(),
            at: at(),
        }],
        ..connected()
    }
}

#[test]
fn names_that_are_wanted_and_missing_block() {
    let missing = XdsState {
        names: None,
        ..connected()
    };
    let told = problems(&missing, &serving(), true, &Departure::Staying);
    assert!(told.texts().0[0].contains("name table"), "{told:?}");
    assert_eq!(
        problems(&missing, &serving(), false, &Departure::Staying),
        Problems::default()
    );
    assert_eq!(
        problems(&missing, &EnvoyState::Waiting, true, &Departure::Staying)
            .texts()
            .0,
        [""; 0]
    );
    assert_eq!(
        problems(&connected(), &serving(), true, &Departure::Staying),
        Problems::default()
    );
}

#[test]
fn streams_that_are_down_are_told_and_do_not_block() {
    let told = |state: &XdsState, envoy: &EnvoyState| {
        let told = problems(state, envoy, true, &Departure::Staying);
        let (blocking, amiss) = told.texts();
        assert_eq!(blocking, [""; 0]);
        amiss.concat()
    };
    let away = XdsState {
        connected_to: None,
        last_error: Some("connection refused".to_owned()),
        ..connected()
    };
    let words = told(&away, &serving());
    assert!(words.starts_with("istiod is not reached since 20"), "{words}");
    assert!(
        words.ends_with("Envoy keeps its last configuration: connection refused"),
        "{words}"
    );
    let words = told(&away, &EnvoyState::Waiting);
    assert!(!words.contains("keeps its last"), "it never had one: {words}");
    let taking_over = XdsState {
        takes_over: true,
        ..XdsState::default()
    };
    let early = problems(&taking_over, &serving(), false, &Departure::Staying);
    assert_eq!(early.texts().0, ["istiod was not asked yet"]);
    let unasked = XdsState {
        names: Some(3),
        ..XdsState::default()
    };
    assert_eq!(told(&unasked, &EnvoyState::Waiting), "istiod was not asked yet");
    let alone = XdsState {
        envoy_connected: false,
        ..connected()
    };
    assert!(told(&alone, &serving()).starts_with("Envoy is not connected to the agent"));
    assert_eq!(told(&alone, &EnvoyState::Waiting), "");
    let hung_up = XdsState {
        envoy_connected: false,
        ..away
    };
    let leaving = problems(&hung_up, &serving(), true, &Departure::HungUp);
    assert_eq!(leaving, Problems::default(), "it is no fault of a VM that it leaves");
}

/// Served from the snapshot, five seconds after `at`.
fn black_start() -> XdsState {
    let hour = Duration::from_secs(3600);
    XdsState {
        connected_to: None,
        last_error: Some("refused".to_owned()),
        snapshot: Some(SnapshotUse {
            since: at(),
            written: at() - hour,
            until: Some(at() + hour),
        }),
        ..connected()
    }
}

#[test]
fn snapshot_that_serves_is_told_with_its_age_and_end_and_does_not_block() {
    let told = problems(&black_start(), &serving(), true, &Departure::Staying);
    let (blocking, amiss) = told.texts();
    assert_eq!(blocking, [""; 0]);
    let (since, written) = (date(at()), date(at() - Duration::from_secs(3600)));
    let until = date(at() + Duration::from_secs(3600));
    assert_eq!(
        amiss,
        [format!(
            "istiod is not reached since {since}, Envoy is served since {since} from what was kept at {written}, \
             which works until the certificate ends at {until}: refused"
        )]
    );
    let told = lines(&black_start(), at() + Duration::from_secs(5));
    assert_eq!(
        told[1],
        format!("- Envoy is served since 5s ago from what was kept 1h 5s ago, until the certificate ends at {until}")
    );
}

#[test]
fn snapshot_that_is_not_kept_is_told_and_does_not_block() {
    let state = XdsState {
        snapshot_problem: Some("the disk is full".to_owned()),
        ..connected()
    };
    let expected = Problems::default().amiss(Code::Snapshot, ["the disk is full".to_owned()]);
    assert_eq!(problems(&state, &serving(), true, &Departure::Staying), expected);
}

#[test]
fn refused_resource_is_told_and_its_cause_before_envoys_words() {
    let told = |message: &str| {
        let problems = problems(&refused(message), &serving(), true, &Departure::Staying);
        let [problem] = <[_; 1]>::try_from(problems.in_order()).unwrap();
        (problem.code, problem.text)
    };
    let (code, words) = told("0.0.0.0_80: duplicate address");
    assert_eq!(code, Code::EnvoyRefused);
    assert!(
        words.contains("refused a Listener") && words.ends_with("duplicate address"),
        "{words}"
    );
    let refused = |number| {
        format!(
            "outbound|70{number}||catalog.shop.svc: Didn't find a registered implementation for \
             'istio.metadata_exchange' with type URL: 'type.googleapis.com/MetadataExchange'"
        )
    };
    let (code, words) = told(&(10..30).map(refused).collect::<Vec<_>>().join("; "));
    assert_eq!(code, Code::EnvoyExtensions);
    let cause = words.find("lacks Istio's extensions");
    assert!(cause.is_some_and(|at| at < 200), "{words}");
}

#[test]
fn lines_tell_the_stream_and_each_refusal_with_its_age() {
    let now = at() + Duration::from_secs(5);
    assert_eq!(
        lines(&refused("virtualInbound: no"), now),
        [
            "connected to istiod:15012 (10.0.0.1) since 5s ago, 3 names, last push 5s ago",
            "- Envoy refused a Listener 5s ago: virtualInbound: no",
        ]
    );
    let away = XdsState {
        last_error: Some("refused".to_owned()),
        since: Some(at()),
        ..XdsState::default()
    };
    assert_eq!(
        lines(&away, now),
        ["NOT CONNECTED since 5s ago: refused, no name table yet, Envoy's stream is not open"]
    );
}
