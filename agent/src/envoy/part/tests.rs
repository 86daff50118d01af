use std::time::UNIX_EPOCH;

use super::*;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_795_231_431)
}

/// An Envoy that serves, and another that has been wanted for so many seconds.
fn succeeded(seconds: u64, failed: Option<&str>) -> EnvoyState {
    EnvoyState::Ready {
        pid: 7,
        adopted: false,
        restarts: 2,
        successor: Some(Successor {
            since: now() - Duration::from_secs(seconds),
            failed: failed.map(str::to_owned),
            lacks: Some("it lacks listeners".to_owned()),
        }),
    }
}

#[test]
fn envoy_that_does_not_serve_blocks() {
    let reason = "signal: 9".to_owned();
    for (state, part) in [
        (EnvoyState::Waiting, "not started"),
        (
            EnvoyState::Starting { pid: 7, ended: None },
            "(pid 7) has no configuration",
        ),
        (
            EnvoyState::Starting {
                pid: 7,
                ended: Some(reason.clone()),
            },
            "(pid 7) was started again and does not serve yet: signal: 9",
        ),
        (EnvoyState::Draining { pid: 7 }, "drained"),
        (EnvoyState::Down { reason }, "Envoy is down: signal: 9"),
    ] {
        let told = problems(&state, None, now());
        let (blocking, amiss) = told.texts();
        assert!(blocking[0].contains(part), "{part}: {blocking:?}");
        assert_eq!(amiss, [""; 0], "{part}");
    }
}

#[test]
fn successor_is_told_once_it_failed_or_is_late() {
    let told = |state: &EnvoyState, problem| {
        let told = problems(state, problem, now());
        let (blocking, amiss) = told.texts();
        assert_eq!(blocking, [""; 0]);
        amiss.concat()
    };
    assert_eq!(told(&succeeded(5, None), None), "");
    let late = told(&succeeded(20, None), None);
    assert!(
        late.ends_with("does not get ready, the one before serves: it lacks listeners"),
        "{late}"
    );
    let failed = told(&succeeded(0, Some("exit status: 1")), None);
    assert!(
        failed.ends_with("exit status: 1; the next one: it lacks listeners"),
        "{failed}"
    );
    let earlier = told(&succeeded(5, None), Some("no answer"));
    assert_eq!(earlier, "an Envoy that was fetched before serves: no answer");
}

#[test]
fn successor_has_a_line_beside_the_envoy_that_serves() {
    assert_eq!(
        lines(&succeeded(40, Some("exit status: 1")), now()),
        [
            "ready, pid 7, restarted 2 times, serves until a newer one is ready",
            "- the newer one, wanted since 40s ago, is not ready: exit status: 1; the next one: it lacks listeners",
        ]
    );
}
