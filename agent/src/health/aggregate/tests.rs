use std::time::Duration;

use super::*;
use crate::facts::{PrivateKey, SpiffeId, Successor};

const HOUR: Duration = Duration::from_secs(60 * 60);

/// Everything that a verdict is made of, owned, so that a case can change one thing.
struct World {
    credentials: Option<Credentials>,
    renewal_problem: Option<String>,
    names_wanted: bool,
    xds: XdsState,
    envoy: EnvoyState,
    envoy_problem: Option<String>,
    interception_wanted: bool,
    intercept: InterceptState,
    container: ContainerState,
    probe: ProbeState,
    now: SystemTime,
}

/// A VM that serves, one hour into a certificate of 24.
fn well() -> World {
    let issued = SystemTime::UNIX_EPOCH + HOUR * 1000;
    World {
        credentials: Some(Credentials {
            spiffe_id: SpiffeId {
                trust_domain: "cluster.local".to_owned(),
                namespace: "shop".to_owned(),
                service_account: "web".to_owned(),
            },
            chain_pem: String::new(),
            key: PrivateKey::new(""),
            roots_pem: String::new(),
            not_before: issued,
            not_after: issued + HOUR * 24,
            serial: String::new(),
            proven: None,
        }),
        renewal_problem: None,
        envoy_problem: None,
        names_wanted: true,
        xds: XdsState {
            connected_to: Some("istiod:15012 (10.0.0.1)".to_owned()),
            since: Some(issued),
            envoy_connected: true,
            names: Some(3),
            ..XdsState::default()
        },
        envoy: EnvoyState::Ready {
            pid: 7,
            adopted: false,
            restarts: 0,
            successor: None,
        },
        interception_wanted: true,
        intercept: InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 9,
        },
        container: ContainerState::Running {
            id: "0123456789ab".to_owned(),
            restarts: 0,
            outdated: false,
            address: None,
        },
        probe: ProbeState::Healthy,
        now: issued + HOUR,
    }
}

impl World {
    fn judged(&self) -> Health {
        aggregate(&Facts {
            credentials: self.credentials.as_ref(),
            renewal_problem: self.renewal_problem.as_deref(),
            join_problem: None,
            names_wanted: self.names_wanted,
            xds: &self.xds,
            envoy: &self.envoy,
            envoy_problem: self.envoy_problem.as_deref(),
            interception_wanted: self.interception_wanted,
            intercept: &self.intercept,
            container: &self.container,
            probe: &self.probe,
            now: self.now,
        })
    }
}

/// An Envoy that serves, and another that has been wanted since then.
fn succeeded(since: SystemTime, failed: Option<String>) -> EnvoyState {
    EnvoyState::Ready {
        pid: 7,
        adopted: false,
        restarts: 0,
        successor: Some(Successor {
            since,
            failed,
            lacks: Some("it lacks listeners".to_owned()),
        }),
    }
}

/// What is changed, whether the VM is ready then, and what the one problem has in it.
type Case = (fn(&mut World), bool, &'static [&'static str]);

#[track_caller]
fn check(cases: &[Case]) {
    for (number, (change, ready, parts)) in cases.iter().enumerate() {
        let mut world = well();
        change(&mut world);
        let health = world.judged();
        assert_eq!(health.ready, *ready, "case {number}: {health:?}");
        match parts {
            [] => assert_eq!(health.problems, [""; 0], "case {number}"),
            parts => {
                assert_eq!(health.problems.len(), 1, "case {number}: {health:?}");
                for part in *parts {
                    assert!(health.problems[0].contains(part), "case {number}: {part}: {health:?}");
                }
            }
        }
    }
}

#[test]
fn a_vm_that_serves_is_ready() {
    check(&[
        (|_| {}, true, &[]),
        (|w| w.container = ContainerState::NotConfigured, true, &[]),
        (|w| w.probe = ProbeState::NotConfigured, true, &[]),
        (
            |w| (w.interception_wanted, w.intercept) = (false, InterceptState::Absent),
            true,
            &[],
        ),
        (|w| (w.names_wanted, w.xds.names) = (false, None), true, &[]),
    ]);
}

#[test]
fn a_vm_whose_envoy_or_rules_are_not_in_place_is_unready() {
    check(&[
        (|w| w.envoy = EnvoyState::Waiting, false, &["not started"]),
        (
            |w| w.envoy = EnvoyState::Starting { pid: 7 },
            false,
            &["pid 7", "no configuration"],
        ),
        (|w| w.envoy = EnvoyState::Draining { pid: 7 }, false, &["drained"]),
        (
            |w| {
                w.envoy = EnvoyState::Down {
                    reason: "signal: 9".to_owned(),
                }
            },
            false,
            &["Envoy is down: signal: 9"],
        ),
        (|w| w.intercept = InterceptState::Absent, false, &["rules are not in"]),
        (
            |w| {
                w.intercept = InterceptState::Open {
                    reason: "Envoy died".to_owned(),
                }
            },
            false,
            &["past the mesh", "on_envoy_down", "Envoy died"],
        ),
        (
            |w| {
                w.intercept = InterceptState::Failed {
                    error: "no nf_tables".to_owned(),
                }
            },
            false,
            &["no nf_tables"],
        ),
    ]);
}

#[test]
fn a_vm_without_application_names_or_certificate_is_unready() {
    check(&[
        (
            |w| {
                w.container = ContainerState::Waiting {
                    reason: "pulling web:1".to_owned(),
                }
            },
            false,
            &["pulling web:1"],
        ),
        (
            |w| {
                w.container = ContainerState::Failed {
                    error: "exited with status 1".to_owned(),
                }
            },
            false,
            &["exited with status 1"],
        ),
        (|w| w.xds.names = None, false, &["name table"]),
        (|w| w.credentials = None, false, &["no certificate", "check"]),
        (
            |w| (w.credentials, w.renewal_problem) = (None, Some("the token expired".to_owned())),
            false,
            &["no certificate yet: the token expired"],
        ),
        (|w| w.now += HOUR * 23, false, &["expired at 1970-02-12T16:00:00Z"]),
        (|w| w.now -= HOUR * 2, false, &["clock"]),
    ]);
}

#[test]
fn an_envoy_that_does_not_take_over_is_told_once_it_failed_or_is_late() {
    check(&[
        (|w| w.envoy = succeeded(w.now - Duration::from_secs(5), None), true, &[]),
        (
            |w| w.envoy = succeeded(w.now - Duration::from_secs(20), None),
            true,
            &[
                "a newer Envoy",
                "since 1970-02-11T16:59:40Z",
                "the one before serves: it lacks listeners",
            ],
        ),
        (
            |w| w.envoy = succeeded(w.now, Some("exit status: 1".to_owned())),
            true,
            &["does not get ready", "exit status: 1; the next one: it lacks listeners"],
        ),
    ]);
}

#[test]
fn what_is_merely_amiss_is_told() {
    check(&[
        (
            |w| {
                w.xds.connected_to = None;
                w.xds.last_error = Some("connection refused".to_owned());
            },
            true,
            &["istiod is not reached since 1970-02-11T16:00:00Z", "connection refused"],
        ),
        (
            |w| w.xds.envoy_connected = false,
            true,
            &["Envoy is not connected to the agent"],
        ),
        (
            |w| {
                w.probe = ProbeState::Unhealthy {
                    reason: "answers NOT_SERVING".to_owned(),
                }
            },
            true,
            &["health probe", "NOT_SERVING"],
        ),
        (|w| w.now += HOUR * 16, true, &[]),
        (
            |w| w.now += HOUR * 17,
            true,
            &["expires at 1970-02-12T16:00:00Z", "late"],
        ),
        (
            |w| w.envoy_problem = Some("no answer".to_owned()),
            true,
            &["an Envoy that was fetched before serves: no answer"],
        ),
        (
            |w| w.renewal_problem = Some("istiod refused the token".to_owned()),
            true,
            &["not renewed", "istiod refused the token"],
        ),
        (
            |w| w.xds.nacks.push(refused("Listener", "0.0.0.0_80: duplicate\naddress")),
            true,
            &["refused a Listener", "0.0.0.0_80: duplicate address"],
        ),
        (
            |w| {
                let words = "Didn't find a registered implementation for 'istio.stats'";
                w.xds.nacks.push(refused("Listener", words));
            },
            true,
            &["istio.stats", "lacks Istio's extensions"],
        ),
        (
            |w| w.xds.nacks.push(refused("Cluster", &"é".repeat(5000))),
            true,
            &["é…"],
        ),
    ]);
}

fn refused(kind: &str, message: &str) -> Nack {
    Nack {
        kind: kind.to_owned(),
        message: message.to_owned(),
        at: well().now,
    }
}

#[test]
fn what_blocks_comes_first() {
    let mut world = well();
    world.xds.connected_to = None;
    world.probe = ProbeState::Unhealthy {
        reason: "Envoy is not ready".to_owned(),
    };
    world.envoy = EnvoyState::Waiting;
    let health = world.judged();
    assert_eq!(health.problems.len(), 3);
    assert!(health.problems[0].starts_with("Envoy is not started"), "{health:?}");
}
