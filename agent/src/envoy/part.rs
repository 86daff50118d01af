//! Envoy as a part: its process in `status`, `plan` and `revert`, and what is wrong with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::lifecycle::{drain, drain_grace};
use super::metrics::METRICS;
use super::options::{Options, Outputs};
use super::{offline, task};
use crate::config::Backend;
use crate::facts::{EnvoyState, Membership, Successor, date};
use crate::part::{
    Changes, Channels, Code, Context, Metric, Part, Plan, Problems, SHORT, Section, Site, State, Task, ago, changes_of,
};

/// An Envoy that takes over is ready within a second or two; one that is not after so long has a problem.
const LATE: Duration = Duration::from_secs(15);

/// Keeps Envoy running.
#[derive(Debug)]
pub struct EnvoyPart;

/// Empties Envoy of connections. It starts after all that the connections need, so that the drain ends while everything of
/// that still works.
#[derive(Debug)]
pub struct DrainPart;

const SECTION: State<EnvoyState> = State {
    key: "envoy",
    title: "Envoy",
    live: |channels| channels.envoy.borrow().clone(),
    offline,
    lines,
};

impl Part for EnvoyPart {
    fn name(&self) -> &'static str {
        "Envoy"
    }

    /// The rules are prepared beside Envoy's start, which they wait for before they redirect anything.
    fn task(&self, context: &Context) -> Option<Task> {
        let (options, channels) = (options(context), &context.channels);
        let (membership, workloads) = (channels.membership.subscribe(), Arc::clone(&channels.workloads));
        let outputs = Outputs {
            state: channels.envoy.clone(),
            problem: channels.envoy_problem.clone(),
            version: channels.envoy_version.clone(),
        };
        let task = Task::new(2 * SHORT, |scope| {
            task::run(scope, options, membership, workloads, outputs)
        });
        Some(task.beside_next(context.site.config.intercept.backend != Backend::None))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.envoy), changes_of(&channels.envoy_problem)]
    }

    fn problems(&self, context: &Context, now: SystemTime) -> Problems {
        let state = context.channels.envoy.borrow().clone();
        let problem = context.channels.envoy_problem.borrow().clone();
        problems(&state, problem.as_deref(), now)
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            let options = Options::new(site.host.clone(), &site.config, None);
            Ok(offline::plan(self.name(), &options, membership))
        })
    }

    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(offline::stop_all(site))
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { Ok(offline::traces(site).await) })
    }
}

impl Part for DrainPart {
    fn name(&self) -> &'static str {
        "drain"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let channels = &context.channels;
        let grace = drain_grace(&context.site.config.envoy, &channels.membership()) + SHORT;
        let (membership, publish) = (channels.membership.subscribe(), channels.envoy.clone());
        let (options, hastened) = (options(context), channels.hastened.subscribe());
        Some(Task::new(grace, |scope| {
            drain(scope, options, membership, publish, hastened)
        }))
    }
}

fn options(context: &Context) -> Options {
    let site = &context.site;
    let unit = site.units.envoy.clone();
    Options {
        refusals: context.channels.refusals.clone(),
        counts: context.channels.counts.envoy.clone(),
        ..Options::new(site.host.clone(), &site.config, unit)
    }
}

/// An Envoy that runs, about which no agent knows whether it serves.
fn offline(site: &Site) -> EnvoyState {
    let pid = offline::running(&site.host, &site.config.paths);
    pid.map_or_else(EnvoyState::default, |pid| EnvoyState::Starting { pid, ended: None })
}

fn problems(state: &EnvoyState, problem: Option<&str>, now: SystemTime) -> Problems {
    let earlier = problem.map(|problem| format!("an Envoy that was fetched before serves: {problem}"));
    Problems::default()
        .blocking(code(state), not_serving(state))
        .amiss(Code::EnvoyEarlier, earlier)
        .amiss(Code::EnvoySuccessor, late_successor(state, now))
}

fn code(state: &EnvoyState) -> Code {
    match state {
        EnvoyState::Waiting | EnvoyState::Fetching { .. } => Code::EnvoyWaiting,
        EnvoyState::Down { .. } | EnvoyState::Starting { ended: Some(_), .. } => Code::EnvoyDown,
        EnvoyState::Starting { .. } | EnvoyState::Ready { .. } => Code::EnvoyUnconfigured,
        EnvoyState::Draining { .. } => Code::EnvoyDraining,
    }
}

fn not_serving(state: &EnvoyState) -> Option<String> {
    match state {
        EnvoyState::Ready { .. } => None,
        EnvoyState::Waiting => Some("Envoy is not started yet".to_owned()),
        EnvoyState::Fetching { progress } => Some(format!("Envoy is not started yet: {progress}")),
        EnvoyState::Starting { pid, ended: None } => {
            Some(format!("Envoy (pid {pid}) has no configuration from istiod yet"))
        }
        EnvoyState::Starting {
            pid,
            ended: Some(reason),
        } => Some(format!(
            "Envoy (pid {pid}) was started again and does not serve yet: {reason}"
        )),
        EnvoyState::Down { reason } => Some(format!("Envoy is down: {reason}")),
        EnvoyState::Draining { .. } => Some("Envoy is being drained".to_owned()),
    }
}

/// An Envoy that does not take over, while the one before serves.
fn late_successor(state: &EnvoyState, now: SystemTime) -> Option<String> {
    let successor = state.successor()?;
    let waited = now.duration_since(successor.since).unwrap_or_default();
    (successor.failed.is_some() || waited >= LATE).then(|| {
        format!(
            "a newer Envoy is wanted since {} and does not get ready, the one before serves: {}",
            date(successor.since),
            successor.cause()
        )
    })
}

fn lines(state: &EnvoyState, now: SystemTime) -> Vec<String> {
    let first = match state {
        EnvoyState::Waiting => "not started".to_owned(),
        EnvoyState::Fetching { progress } => format!("not started: {progress}"),
        EnvoyState::Starting { pid, ended } => {
            let before = ended
                .as_ref()
                .map_or(String::new(), |reason| format!("; the one before: {reason}"));
            format!("runs, pid {pid}, not known to serve{before}")
        }
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
    };
    let successor = state.successor().map(|successor| taking_over(successor, now));
    [first].into_iter().chain(successor).collect()
}

fn taking_over(successor: &Successor, now: SystemTime) -> String {
    let (since, cause) = (ago(successor.since, now), successor.cause());
    format!("- the newer one, wanted since {since}, is not ready: {cause}")
}

#[cfg(test)]
mod tests;
