//! All facts folded into one verdict. Pure.
//!
//! Ready is what Istio's 15020 calls ready, and the container beside it: Envoy serves, the rules are as wanted,
//! the certificate is valid, the name table is here when DNS is captured. What is merely amiss, such as istiod
//! being away, is told and changes nothing: the VM serves on with what it has.

use std::time::{Duration, SystemTime};

use crate::facts::{ContainerState, Credentials, EnvoyState, Health, InterceptState, Nack, ProbeState, XdsState, date};

/// Longest problem, in characters: it is a line of `status`, and others' words are in it.
const MAX_PROBLEM: usize = 600;
/// An Envoy that takes over is ready within a second or two; one that is not after so long has a problem.
const LATE: Duration = Duration::from_secs(15);

/// What there is to judge.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The certificate in use.
    pub credentials: Option<&'a Credentials>,
    /// Why there is no new certificate while one is due.
    pub renewal_problem: Option<&'a str>,
    /// Why what is known of the mesh may be old.
    pub join_problem: Option<&'a str>,
    /// Whether the agent answers DNS.
    pub names_wanted: bool,
    /// The stream to istiod, and Envoy's.
    pub xds: &'a XdsState,
    /// The proxy.
    pub envoy: &'a EnvoyState,
    /// Why the Envoy that serves is not the configured one.
    pub envoy_problem: Option<&'a str>,
    /// Whether the agent redirects traffic.
    pub interception_wanted: bool,
    /// The rules.
    pub intercept: &'a InterceptState,
    /// The application's container.
    pub container: &'a ContainerState,
    /// The application.
    pub probe: &'a ProbeState,
    /// What certificates are judged by.
    pub now: SystemTime,
}

/// The verdict: first what keeps the VM from serving, then what is merely amiss.
pub fn aggregate(facts: &Facts<'_>) -> Health {
    let blocking: Vec<String> = [
        envoy(facts.envoy),
        interception(facts),
        container(facts.container),
        certificate(facts),
        names(facts),
    ]
    .into_iter()
    .flatten()
    .collect();
    let ready = blocking.is_empty();
    let amiss = [
        probe(facts.probe),
        facts
            .join_problem
            .map(|problem| format!("the join source is followed no more, what it gave last serves: {problem}")),
        facts
            .envoy_problem
            .map(|problem| format!("an Envoy that was fetched before serves: {problem}")),
        successor(facts),
        renewal(facts),
        istiod(facts.xds),
        envoys_stream(facts),
    ];
    let refused = facts.xds.nacks.iter().map(nack);
    let problems = blocking.into_iter().chain(refused).chain(amiss.into_iter().flatten());
    Health {
        ready,
        problems: problems.map(|problem| one_line(&problem)).collect(),
    }
}

fn envoy(state: &EnvoyState) -> Option<String> {
    match state {
        EnvoyState::Ready { .. } => None,
        EnvoyState::Waiting => Some("Envoy is not started yet".to_owned()),
        EnvoyState::Fetching { progress } => Some(format!("Envoy is not started yet: {progress}")),
        EnvoyState::Starting { pid } => Some(format!("Envoy (pid {pid}) has no configuration from istiod yet")),
        EnvoyState::Down { reason } => Some(format!("Envoy is down: {reason}")),
        EnvoyState::Draining { .. } => Some("Envoy is being drained".to_owned()),
    }
}

fn interception(facts: &Facts<'_>) -> Option<String> {
    if !facts.interception_wanted {
        return None;
    }
    match facts.intercept {
        InterceptState::Active { .. } => None,
        InterceptState::Absent => Some("the interception rules are not in yet: they wait for Envoy".to_owned()),
        InterceptState::Open { reason } => Some(format!(
            "traffic goes past the mesh, as intercept.on_envoy_down = \"open\" wants: {reason}"
        )),
        InterceptState::Failed { error } => Some(format!("the interception rules failed: {error}")),
    }
}

fn container(state: &ContainerState) -> Option<String> {
    match state {
        ContainerState::NotConfigured | ContainerState::Running { .. } => None,
        ContainerState::Waiting { reason } => Some(format!("the container is not started: {reason}")),
        ContainerState::Failed { error } => Some(format!("the container does not run: {error}")),
    }
}

fn certificate(facts: &Facts<'_>) -> Option<String> {
    let why = || facts.renewal_problem.unwrap_or("`istio-vm-agent check` tells why");
    match facts.credentials {
        None => Some(format!("there is no certificate yet: {}", why())),
        Some(held) if facts.now >= held.not_after => Some(format!(
            "the certificate expired at {}: {}",
            date(held.not_after),
            why()
        )),
        Some(held) if facts.now < held.not_before => Some(format!(
            "the certificate is valid from {} only: set the VM's clock, it says {}",
            date(held.not_before),
            date(facts.now)
        )),
        Some(_) => None,
    }
}

fn names(facts: &Facts<'_>) -> Option<String> {
    let missing = facts.names_wanted && facts.xds.names.is_none();
    missing.then(|| "there is no name table from istiod yet: names of the mesh are not answered".to_owned())
}

/// An Envoy that does not take over, while the one before serves.
fn successor(facts: &Facts<'_>) -> Option<String> {
    let successor = facts.envoy.successor()?;
    let waited = facts.now.duration_since(successor.since).unwrap_or_default();
    (successor.failed.is_some() || waited >= LATE).then(|| {
        format!(
            "a newer Envoy is wanted since {} and does not get ready, the one before serves: {}",
            date(successor.since),
            successor.cause()
        )
    })
}

/// A renewal that is late, while the certificate still serves.
fn renewal(facts: &Facts<'_>) -> Option<String> {
    let held = facts.credentials.filter(|held| held.valid_at(facts.now))?;
    let expires = date(held.not_after);
    if let Some(problem) = facts.renewal_problem {
        return Some(format!(
            "the certificate, which expires at {expires}, is not renewed: {problem}"
        ));
    }
    // Renewal begins at half life.
    let life = held.not_after.duration_since(held.not_before).ok()?;
    (facts.now >= held.not_before + life / 4 * 3).then(|| {
        format!("the certificate expires at {expires} and its renewal is late: `istio-vm-agent check` tells why")
    })
}

fn istiod(xds: &XdsState) -> Option<String> {
    if xds.connected_to.is_some() {
        return None;
    }
    let since = xds
        .since
        .map(|since| format!(" since {}", date(since)))
        .unwrap_or_default();
    let error = xds.last_error.as_deref().unwrap_or("not tried yet");
    Some(format!(
        "istiod is not reached{since}, Envoy keeps its last configuration: {error}"
    ))
}

fn envoys_stream(facts: &Facts<'_>) -> Option<String> {
    (facts.envoy.is_ready() && !facts.xds.envoy_connected).then(|| {
        "Envoy is not connected to the agent for its configuration: it keeps what it has and tries again".to_owned()
    })
}

fn nack(nack: &Nack) -> String {
    let Nack { kind, message, at } = nack;
    // What Envoy says of a type that it wasn't built with; Istio's own begin with `istio.`.
    let foreign = message.contains("istio.") && message.contains("registered implementation");
    let remedy = match foreign {
        true => "; this Envoy lacks Istio's extensions: use the Envoy of Istio's proxy image, or don't configure them",
        false => "",
    };
    format!(
        "Envoy refused a {kind} at {} and keeps the one before: {message}{remedy}",
        date(*at)
    )
}

fn probe(state: &ProbeState) -> Option<String> {
    match state {
        ProbeState::NotConfigured | ProbeState::Healthy => None,
        ProbeState::Unknown => Some("the application has not been judged yet: the mesh sends it nothing".to_owned()),
        ProbeState::Unhealthy { reason } => Some(format!(
            "the application fails its health probe, so the mesh sends it nothing: {reason}"
        )),
    }
}

fn one_line(text: &str) -> String {
    let mut line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(MAX_PROBLEM)
        .collect();
    if text.chars().nth(MAX_PROBLEM).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests;
