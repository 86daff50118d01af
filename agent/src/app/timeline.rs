//! The moments of a start, by which a slow one is judged: each fact's, when it came about.

use std::fmt::Write as _;
use std::time::Duration;

use crate::facts::{EnvoyState, InterceptState, Startup};
use crate::part::Channels;

type Moment = (&'static str, fn(&Channels) -> bool);

/// In the order that is usual.
const MOMENTS: [Moment; 7] = [
    ("Envoy started", |facts| {
        matches!(
            *facts.envoy.borrow(),
            EnvoyState::Starting { .. } | EnvoyState::Ready { .. }
        )
    }),
    ("certificate", |facts| facts.credentials.borrow().is_some()),
    ("Envoy asked", |facts| facts.xds.borrow().envoy_connected),
    ("istiod answered", |facts| facts.xds.borrow().connected_to.is_some()),
    ("listeners accepted", |facts| facts.xds.borrow().has_listeners),
    ("Envoy ready", |facts| facts.envoy.borrow().is_ready()),
    ("rules in", |facts| {
        matches!(*facts.intercept.borrow(), InterceptState::Active { .. })
    }),
];

/// Writes down what has come about since the last look, until the VM is ready for the first time: then the log has all.
pub(super) fn note(facts: &Channels, now: Duration, is_ready: bool) {
    facts.startup.send_if_modified(|startup| {
        if startup.ready.is_some() {
            return false;
        }
        let known = startup.moments.len();
        for (name, has_come) in MOMENTS {
            if startup.moments.iter().all(|(moment, _)| *moment != name) && has_come(facts) {
                startup.moments.push((name, now));
            }
        }
        if is_ready {
            startup.ready = Some(now);
            tracing::info!("{}", told(startup, now));
        }
        is_ready || startup.moments.len() > known
    });
}

/// `ready after 171.0 ms: configuration 8.1, join 12.0, Envoy started 21.4, ...`; times since the start.
fn told(startup: &Startup, ready: Duration) -> String {
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    let mut joined = Duration::ZERO;
    let before = startup.phases.iter().take(2).map(|(phase, took)| {
        joined += *took;
        (*phase, joined)
    });
    let mut text = format!("ready after {:.1} ms", millis(ready));
    for (at, (name, time)) in before.chain(startup.moments.iter().copied()).enumerate() {
        let mark = if at == 0 { ':' } else { ',' };
        let _ = write!(text, "{mark} {name} {:.1}", millis(time));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::control_plane::fixtures::membership;
    use crate::part::Shared;

    #[test]
    fn moments_are_written_down_once_each_until_the_vm_is_ready() {
        let facts = Channels::new(membership(), &Config::default(), Shared::default());
        let at = Duration::from_millis;
        let envoy = |state| facts.envoy.send_replace(state);
        facts
            .startup
            .send_modify(|startup| startup.phases = vec![("configuration", at(8)), ("join", at(4)), ("hosts", at(1))]);
        note(&facts, at(13), false);
        envoy(EnvoyState::Starting { pid: 7, ended: None });
        note(&facts, at(20), false);
        facts.xds.send_modify(|xds| xds.envoy_connected = true);
        note(&facts, at(90), false);
        // It has lost its stream since, and gets it back.
        facts.xds.send_modify(|xds| xds.envoy_connected = false);
        note(&facts, at(95), true);
        facts.xds.send_modify(|xds| xds.has_listeners = true);
        note(&facts, at(99), true);
        let startup = facts.startup.borrow();
        assert_eq!(startup.ready, Some(at(95)));
        assert_eq!(
            told(&startup, at(95)),
            "ready after 95.0 ms: configuration 8.0, join 12.0, Envoy started 20.0, Envoy asked 90.0"
        );
    }
}
