//! The document for people: one line a part, problems first.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use humantime::format_duration;

use super::{Agent, IdentityStatus, Status};
use crate::bounds::Refused;
use crate::facts::{
    ContainerState, ControlPlane, ControlPlanes, EnvoyState, InterceptState, ProbeState, Standing, Successor, XdsState,
    date,
};
use crate::terminal::one_line;

/// Renders at `now`, with which ages and remaining times are told.
pub(super) fn render(status: &Status, now: SystemTime) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        // Writing to a String can't fail.
        let _ = writeln!(text, "{name:<14}{}", one_line(&value));
    };
    line(
        "Health",
        if status.health.ready {
            "ready".to_owned()
        } else {
            "NOT READY".to_owned()
        },
    );
    for problem in &status.health.problems {
        line("", format!("- {problem}"));
    }
    line("Agent", agent(&status.agent, now));
    line(
        "Identity",
        status
            .identity
            .as_ref()
            .map_or_else(|| "none yet".to_owned(), |it| identity(it, now)),
    );
    line("Control plane", xds(&status.xds, now));
    for told in control_planes(&status.control_planes, now) {
        line("", told);
    }
    for nack in &status.xds.nacks {
        line(
            "",
            format!(
                "- Envoy refused a {} {}: {}",
                nack.kind,
                ago(nack.at, now),
                nack.message
            ),
        );
    }
    line("Envoy", envoy(&status.envoy));
    if let Some(successor) = status.envoy.successor() {
        line("", format!("- {}", taking_over(successor, now)));
    }
    line("Interception", interception(&status.interception));
    line("Container", container(&status.container));
    line("Probe", probe(&status.probe));
    for (number, refused) in status.refused.iter().enumerate() {
        line(if number == 0 { "Refused" } else { "" }, turned_away(refused, now));
    }
    text
}

fn agent(agent: &Agent, now: SystemTime) -> String {
    match agent {
        Agent::NotAnswering { reason } => format!("{reason}; the rest is what this host shows"),
        Agent::Joining {
            version,
            pid,
            since,
            source,
        } => format!("{version}, pid {pid}, started {}, waits for {source}", ago(*since, now)),
        Agent::Running {
            version,
            pid,
            since,
            node,
            control_plane,
        } => {
            format!(
                "{version}, pid {pid}, started {}, {node} of {control_plane}",
                ago(*since, now)
            )
        }
    }
}

fn identity(identity: &IdentityStatus, now: SystemTime) -> String {
    let IdentityStatus {
        spiffe_id,
        serial,
        not_after,
        proven,
        ..
    } = identity;
    let until = date(*not_after);
    let left = not_after
        .duration_since(now)
        .map_or_else(|_| "EXPIRED".to_owned(), |left| format!("{} left", rounded(left)));
    let proven = proven.as_ref().map_or_else(String::new, |proven| {
        format!(", given for {} {}", proven.by, ago(proven.at, now))
    });
    format!("{spiffe_id}, until {until} ({left}), serial {serial}{proven}")
}

fn xds(xds: &XdsState, now: SystemTime) -> String {
    let since = xds
        .since
        .map_or_else(String::new, |since| format!(" since {}", ago(since, now)));
    let names = xds
        .names
        .map_or_else(|| "no name table yet".to_owned(), |names| format!("{names} names"));
    let stream = match (&xds.connected_to, &xds.last_error) {
        (Some(address), _) => format!("connected to {address}{since}"),
        (None, Some(error)) => format!("NOT CONNECTED{since}: {error}"),
        (None, None) => "not connected yet".to_owned(),
    };
    let envoy = if xds.envoy_connected {
        ""
    } else {
        ", Envoy's stream is not open"
    };
    format!("{stream}, {names}{envoy}")
}

/// Which ones there are, when there are several.
fn control_planes(planes: &ControlPlanes, now: SystemTime) -> Vec<String> {
    if planes.all.len() < 2 {
        return Vec::new();
    }
    let mut lines: Vec<String> = planes.all.iter().map(|one| control_plane(one, planes, now)).collect();
    if let (Some(reason), Some(since)) = (&planes.reason, planes.since) {
        lines.push(format!("turned to {} {}: {reason}", planes.current, ago(since, now)));
    }
    lines
}

fn control_plane(plane: &ControlPlane, planes: &ControlPlanes, now: SystemTime) -> String {
    let standing = match &plane.standing {
        Standing::Unknown => "not asked yet".to_owned(),
        Standing::Well => format!("well since {}", ago(plane.since, now)),
        Standing::Unwell { error } => format!("UNWELL since {}: {error}", ago(plane.since, now)),
    };
    let mark = if plane.address == planes.current { "* " } else { "- " };
    format!("{mark}{}, {standing}", plane.address)
}

fn envoy(state: &EnvoyState) -> String {
    match state {
        EnvoyState::Waiting => "not started".to_owned(),
        EnvoyState::Fetching { progress } => format!("not started: {progress}"),
        EnvoyState::Starting { pid } => format!("runs, pid {pid}, not known to serve"),
        EnvoyState::Ready {
            pid,
            adopted,
            restarts,
            successor,
        } => {
            let adopted = if *adopted { ", adopted" } else { "" };
            let until = successor.as_ref().map_or("", |_| ", serves until a newer one is ready");
            format!("ready, pid {pid}{adopted}, restarted {restarts} times{until}")
        }
        EnvoyState::Down { reason } => format!("DOWN: {reason}"),
        EnvoyState::Draining { pid } => format!("draining, pid {pid}"),
    }
}

fn taking_over(successor: &Successor, now: SystemTime) -> String {
    let (since, cause) = (ago(successor.since, now), successor.cause());
    format!("the newer one, wanted since {since}, is not ready: {cause}")
}

fn interception(state: &InterceptState) -> String {
    match state {
        InterceptState::Absent => "no rules".to_owned(),
        InterceptState::Active { backend, rules } => format!("{backend}, {rules} rules"),
        InterceptState::Open { reason } => format!("OPEN, traffic goes past the mesh: {reason}"),
        InterceptState::Failed { error } => format!("FAILED: {error}"),
    }
}

fn container(state: &ContainerState) -> String {
    match state {
        ContainerState::NotConfigured => "none configured".to_owned(),
        ContainerState::Waiting { reason } => format!("waiting: {reason}"),
        ContainerState::Running {
            id, restarts, outdated, ..
        } => {
            let rights = if *outdated {
                ", with more rights than its next start will give it"
            } else {
                ""
            };
            format!("running, {id}, restarted {restarts} times{rights}")
        }
        ContainerState::Failed { error } => format!("FAILED: {error}"),
    }
}

fn probe(state: &ProbeState) -> String {
    match state {
        ProbeState::NotConfigured => "none configured".to_owned(),
        ProbeState::Unknown => "no result yet".to_owned(),
        ProbeState::Healthy => "healthy".to_owned(),
        ProbeState::Unhealthy { reason } => format!("UNHEALTHY: {reason}"),
    }
}

fn turned_away(refused: &Refused, now: SystemTime) -> String {
    let Refused {
        what,
        count,
        whose,
        last,
    } = refused;
    let whose = if whose.is_empty() {
        String::new()
    } else {
        format!(" ({whose})")
    };
    format!("{what}: {count}, the last one {}{whose}", ago(*last, now))
}

fn ago(then: SystemTime, now: SystemTime) -> String {
    format!("{} ago", rounded(now.duration_since(then).unwrap_or_default()))
}

/// Two units are enough for people: `3h 12m`, not `3h 12m 4s 17ms`.
fn rounded(duration: Duration) -> String {
    let text = format_duration(Duration::from_secs(duration.as_secs())).to_string();
    text.splitn(3, ' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{Health, Nack, Proven};

    #[test]
    fn an_operator_sees_cause_and_age() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let status = Status {
            agent: Agent::NotAnswering {
                reason: "not running".to_owned(),
            },
            health: Health {
                ready: false,
                problems: vec!["Envoy is dead".to_owned()],
            },
            identity: Some(IdentityStatus {
                spiffe_id: "spiffe://cluster.local/ns/a/sa/b".to_owned(),
                serial: "0a".to_owned(),
                not_before: now,
                not_after: now + Duration::from_secs(3 * 3600 + 65),
                proven: Some(Proven {
                    by: "its certificate".to_owned(),
                    at: now - Duration::from_secs(90),
                }),
            }),
            control_planes: ControlPlanes::default(),
            xds: XdsState {
                last_error: Some("refused".to_owned()),
                since: Some(now - Duration::from_secs(5)),
                nacks: vec![Nack {
                    kind: "Listener".to_owned(),
                    message: "virtualInbound: no".to_owned(),
                    at: now,
                }],
                ..XdsState::default()
            },
            envoy: EnvoyState::Down {
                reason: "signal: 9".to_owned(),
            },
            interception: InterceptState::Active {
                backend: "nftables".to_owned(),
                rules: 21,
            },
            container: ContainerState::NotConfigured,
            probe: ProbeState::Unhealthy {
                reason: "NOT_SERVING".to_owned(),
            },
            refused: Vec::new(),
        };
        let text = render(&status, now);
        for wanted in [
            "Health        NOT READY\n              - Envoy is dead\n",
            "Agent         not running; the rest is what this host shows\n",
            "(3h 1m left), serial 0a, given for its certificate 1m 30s ago",
            "NOT CONNECTED since 5s ago: refused, no name table yet",
            "- Envoy refused a Listener 0s ago: virtualInbound: no\n",
            "Envoy         DOWN: signal: 9\n",
            "Interception  nftables, 21 rules\n",
            "Probe         UNHEALTHY: NOT_SERVING\n",
        ] {
            assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
        }
    }

    #[test]
    fn what_was_turned_away_is_told_and_nothing_when_nothing_was() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let refused = ["uid 1000", ""].map(|whose| Refused {
            what: "DNS forwards".to_owned(),
            count: 17,
            whose: whose.to_owned(),
            last: now - Duration::from_secs(90),
        });
        let mut status = Status {
            refused: refused.into(),
            ..Status::default()
        };
        let told = "Refused       DNS forwards: 17, the last one 1m 30s ago (uid 1000)\n              \
                    DNS forwards: 17, the last one 1m 30s ago\n";
        assert!(render(&status, now).ends_with(told), "{}", render(&status, now));
        status.refused.clear();
        assert!(!render(&status, now).contains("Refused"));
    }

    #[test]
    fn words_of_others_stay_on_their_line_and_command_no_terminal() {
        let status = Status {
            probe: ProbeState::Unhealthy {
                reason: "\u{1b}[2J\u{7}\r\nHealth        ready\u{202e}".to_owned(),
            },
            ..Status::default()
        };
        let text = render(&status, SystemTime::UNIX_EPOCH);
        let told = "Probe         UNHEALTHY: \\u001b[2J\\u0007\\u000d\\nHealth        ready\\u202e\n";
        assert!(text.ends_with(told), "{text}");
    }

    #[test]
    fn an_envoy_that_does_not_take_over_is_told_beside_the_one_that_serves() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let status = Status {
            envoy: EnvoyState::Ready {
                pid: 7,
                adopted: false,
                restarts: 2,
                successor: Some(Successor {
                    since: now - Duration::from_secs(40),
                    failed: Some("exit status: 1".to_owned()),
                    lacks: None,
                }),
            },
            ..Status::default()
        };
        let wanted = "Envoy         ready, pid 7, restarted 2 times, serves until a newer one is ready\n              \
                      - the newer one, wanted since 40s ago, is not ready: exit status: 1\n";
        let text = render(&status, now);
        assert!(text.contains(wanted), "{wanted:?} is missing in\n{text}");
    }

    #[test]
    fn several_control_planes_are_told_apart() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_231_431);
        let mut planes = ControlPlanes {
            current: "b:15012".to_owned(),
            since: Some(now - Duration::from_secs(5)),
            reason: Some("refused by a:15012".to_owned()),
            all: vec![
                ControlPlane {
                    address: "a:15012".to_owned(),
                    standing: Standing::Unwell {
                        error: "refused".to_owned(),
                    },
                    since: now - Duration::from_secs(5),
                },
                ControlPlane {
                    address: "b:15012".to_owned(),
                    standing: Standing::Well,
                    since: now - Duration::from_secs(90),
                },
            ],
        };
        let told = [
            "- a:15012, UNWELL since 5s ago: refused",
            "* b:15012, well since 1m 30s ago",
            "turned to b:15012 5s ago: refused by a:15012",
        ];
        assert_eq!(control_planes(&planes, now), told);
        planes.all.remove(0);
        assert!(control_planes(&planes, now).is_empty());
    }
}
