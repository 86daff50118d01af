//! The relay as a part, and the way out of the mesh.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;
use tokio::sync::watch;

use super::leave::{self, Registration};
use super::metrics::METRICS;
use super::reported_health::{self, Facts};
use crate::facts::{Departure, EnvoyState, Nack, ProbeState, SnapshotUse, XdsState, date};
use crate::part::{
    Changes, Channels, Code, Context, Metric, Part, Problems, SHORT, Section, Site, State, Task, ago, changes_of,
    running_standby, stop_standby,
};
use crate::xds;

/// Relays Envoy's configuration from istiod.
#[derive(Debug)]
pub struct XdsPart;

/// Has callers go elsewhere. The last part to start, so that it is the first to end, while the VM serves.
#[derive(Debug)]
pub struct LeavePart;

const SECTION: State<XdsState> = State {
    key: "xds",
    title: "Control plane",
    live,
    offline: |_| XdsState::default(),
    lines,
};

impl Part for XdsPart {
    fn name(&self) -> &'static str {
        "xds"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let options = xds::Options {
            standby: site.units.xds.clone(),
            tokens: context.tokens.clone(),
            unix_sockets: site.config.envoy.unix_sockets.clone(),
            refusals: channels.refusals.clone(),
            counts: channels.counts.xds.clone(),
            ..xds::Options::new(site.host.clone(), &site.config.paths, channels.selector.clone())
        };
        let told = watch::Sender::new(ProbeState::Unknown);
        let inputs = xds::Inputs {
            membership: channels.membership.subscribe(),
            credentials: channels.credentials.subscribe(),
            probe: told.subscribe(),
            host: channels.host.subscribe(),
            departure: channels.departure.subscribe(),
            envoy: channels.envoy.subscribe(),
        };
        let facts = Facts {
            probe: channels.probe.subscribe(),
            health: channels.health.subscribe(),
            departure: channels.departure.subscribe(),
            containers: channels.workloads.iter().map(|it| it.container.subscribe()).collect(),
        };
        let outputs = xds::Outputs {
            state: channels.xds.clone(),
            names: channels.names.clone(),
        };
        Some(Task::new(SHORT, |scope| {
            scope.spawn_loop(reported_health::follow(facts, told));
            xds::run(scope, options, inputs, outputs)
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![
            changes_of(&channels.xds),
            changes_of(&channels.envoy),
            changes_of(&channels.membership),
            changes_of(&channels.credentials),
        ]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let channels = &context.channels;
        let names_wanted = channels.membership().dns_capture;
        let departure = channels.departure.borrow();
        problems(&live(channels), &channels.envoy.borrow(), names_wanted, &departure)
    }
}

/// The state, with the end of what it depends on.
fn live(channels: &Channels) -> XdsState {
    let mut xds = channels.xds.borrow().clone();
    if let Some(snapshot) = &mut xds.snapshot {
        snapshot.until = channels.credentials.borrow().as_ref().map(|held| held.not_after);
    }
    xds
}

impl Part for LeavePart {
    fn name(&self) -> &'static str {
        "leave"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let channels = context.channels.clone();
        let propagation = context.site.config.control_plane.propagation;
        Some(Task::new(leave::grace(propagation) + SHORT, move |scope| {
            let (xds, hastened) = (channels.xds.subscribe(), channels.hastened.subscribe());
            let departure = channels.departure.clone();
            let registration = move || Registration::of(&channels.membership());
            leave::run(scope, registration, propagation, xds, hastened, departure)
        }))
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.departure)]
    }

    /// An agent that has failed leaves the standby, which would have callers call what is taken down next.
    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        stop_standby(site, site.units.xds.as_ref())
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        running_standby(site, site.units.xds.as_ref(), "holds the VM's place in the mesh")
    }

    /// A VM that leaves serves on, and is not ready: whoever asks is to send it nothing new.
    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        Problems::default().blocking(Code::Leaving, leaving(&context.channels.departure.borrow()))
    }
}

fn leaving(departure: &Departure) -> Option<String> {
    let phase = match departure {
        Departure::Staying => return None,
        Departure::Announced => "it serves until istiod has taken it out of the endpoints".to_owned(),
        Departure::HungUp => "it serves until istiod has noticed that its stream is closed".to_owned(),
        Departure::Propagating => "it serves until all proxies have heard of it".to_owned(),
        Departure::Over { unannounced: None } => "it is called no more, and Envoy is drained".to_owned(),
        Departure::Over {
            unannounced: Some(reason),
        } => format!("Envoy is drained, and callers were not told before: {reason}"),
    };
    Some(format!("this VM is leaving the mesh: {phase}"))
}

fn problems(xds: &XdsState, envoy: &EnvoyState, names_wanted: bool, departure: &Departure) -> Problems {
    // Names come by Envoy's stream: where Envoy is what is missing, its own problem says so.
    let no_names = names_wanted && xds.names.is_none() && envoy.is_ready();
    let lacking = xds.nacks.iter().filter(|nack| lacks_extensions(nack));
    let others = xds.nacks.iter().filter(|nack| !lacks_extensions(nack));
    Problems::default()
        .blocking(
            Code::NamesMissing,
            no_names.then(|| "there is no name table from istiod yet: names of the mesh are not answered".to_owned()),
        )
        .amiss(
            Code::EnvoyExtensions,
            lacking.map(|nack| refusal(nack, "; this Envoy lacks Istio's extensions")),
        )
        .amiss(Code::EnvoyRefused, others.map(|nack| refusal(nack, "")))
        .with(istiod(xds, envoy, departure))
        .amiss(Code::Snapshot, xds.snapshot_problem.clone())
        .amiss(
            Code::EnvoyStream,
            (envoy.is_ready() && !xds.envoy_connected && !departure.is_leaving()).then(|| {
                "Envoy is not connected to the agent for its configuration: it keeps what it has and tries again"
                    .to_owned()
            }),
        )
}

/// A VM that leaves has hung up itself, of which `LeavePart` tells.
fn istiod(xds: &XdsState, envoy: &EnvoyState, departure: &Departure) -> Problems {
    if departure.is_leaving() || xds.connected_to.is_some() {
        return Problems::default();
    }
    let Some(error) = &xds.last_error else {
        let pending = "istiod was not asked yet".to_owned();
        return match xds.takes_over {
            // Whoever restarts an agent that is ready must not have the VM lose its place in the mesh.
            true => Problems::default().blocking(Code::IstiodPending, Some(pending)),
            false => Problems::default().amiss(Code::IstiodPending, [pending]),
        };
    };
    let since = xds
        .since
        .map(|since| format!(" since {}", date(since)))
        .unwrap_or_default();
    let meanwhile = match &xds.snapshot {
        Some(snapshot) => served_from(snapshot),
        None if envoy.is_ready() => ", Envoy keeps its last configuration".to_owned(),
        None => String::new(),
    };
    let text = format!("istiod is not reached{since}{meanwhile}: {error}");
    Problems::default().amiss(Code::IstiodUnreachable, [text])
}

fn served_from(snapshot: &SnapshotUse) -> String {
    let SnapshotUse { since, written, until } = snapshot;
    let until = until.map_or_else(String::new, |until| {
        format!(", which works until the certificate ends at {}", date(until))
    });
    format!(
        ", Envoy is served since {} from what was kept at {}{until}",
        date(*since),
        date(*written)
    )
}

/// True for Envoy's words about a type that it was not built with; the names of Istio's own types begin with `istio.`.
fn lacks_extensions(nack: &Nack) -> bool {
    nack.message.contains("istio.") && nack.message.contains("registered implementation")
}

/// Envoy's words stand last: they may be long, and are what is cut then.
fn refusal(Nack { kind, message, at }: &Nack, cause: &str) -> String {
    format!(
        "Envoy refused a {kind} at {} and keeps the one before{cause}: {message}",
        date(*at)
    )
}

fn lines(xds: &XdsState, now: SystemTime) -> Vec<String> {
    let refused = xds.nacks.iter().map(|nack| {
        format!(
            "- Envoy refused a {} {}: {}",
            nack.kind,
            ago(nack.at, now),
            nack.message
        )
    });
    let snapshot = xds.snapshot.as_ref().map(|snapshot| {
        let SnapshotUse { since, written, until } = snapshot;
        let until = until.map_or_else(String::new, |until| {
            format!(", until the certificate ends at {}", date(until))
        });
        let (since, written) = (ago(*since, now), ago(*written, now));
        format!("- Envoy is served since {since} from what was kept {written}{until}")
    });
    [line(xds, now)].into_iter().chain(snapshot).chain(refused).collect()
}

fn line(xds: &XdsState, now: SystemTime) -> String {
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
    let envoy = match xds.envoy_connected {
        true => "",
        false => ", Envoy's stream is not open",
    };
    let push = xds
        .last_push
        .map_or_else(String::new, |push| format!(", last push {}", ago(push, now)));
    format!("{stream}, {names}{push}{envoy}")
}

#[cfg(test)]
mod tests;
