//! The interception rules as a part.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::metrics::METRICS;
use super::openings::{self, Asked};
use super::{OPEN_BRIDGE, check, is_wanted, summary};
use crate::config::{Backend, Config};
use crate::facts::{InterceptState, Membership};
use crate::host::Host;
use crate::host::change::HostChange;
use crate::intercept::{self, Options};
use crate::part::{
    Changes, Channels, CheckContext, Code, Context, Metric, Part, Plan, Problems, Question, SHORT, Section, Site,
    State, Task, changes_of,
};

/// Keeps the rules.
#[derive(Debug)]
pub struct InterceptPart;

/// Longest that a command may take that counts packets.
const PATIENCE: Duration = Duration::from_secs(1);

const SECTION: State<InterceptState> = State {
    key: "interception",
    title: "Interception",
    live: |channels| channels.intercept.borrow().clone(),
    offline: |site| intercept::offline(&site.host),
    lines: |state, _| vec![line(state)],
};

impl Part for InterceptPart {
    fn name(&self) -> &'static str {
        "interception"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let options = Options {
            repairs: channels.counts.rule_repairs.clone(),
            ..Options::new(site.host.clone(), &site.config)
        };
        let (membership, envoy) = (channels.membership.subscribe(), channels.envoy.subscribe());
        let (machine, publish) = (channels.host.subscribe(), channels.intercept.clone());
        let openings = openings::follow(site.clone(), channels.membership.subscribe(), channels.firewall.clone());
        is_wanted(site).then(|| {
            Task::new(SHORT, |scope| {
                scope.spawn_loop(openings);
                intercept::run(scope, options, membership, envoy, machine, publish)
            })
        })
    }

    fn is_gone(&self, _now: &Config, next: &Config) -> bool {
        next.intercept.backend == Backend::None
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn refresh<'a>(&'a self, host: &'a Host, channels: &'a Channels) -> BoxFuture<'a, ()> {
        Box::pin(async {
            let backend = match &*channels.intercept.borrow() {
                InterceptState::Active { backend, .. } => backend.clone(),
                _ => String::new(),
            };
            let host = host.clone().hurried(PATIENCE);
            match host.blocking(move |host| intercept::packets(host, &backend)).await {
                Ok(packets) => drop(channels.rule_packets.send_replace(packets)),
                Err(error) => tracing::debug!("the rules' counters can't be read: {error:#}"),
            }
        })
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.intercept), changes_of(&channels.firewall)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        match is_wanted(&context.site) {
            true => problems(&context.channels.intercept.borrow())
                .amiss(Code::FirewallClosed, context.channels.firewall.borrow().clone()),
            false => Problems::default(),
        }
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            if !is_wanted(site) {
                return Ok(Plan::default());
            }
            let options = Options::new(site.host.clone(), &site.config);
            let note = match openings::closed(site, membership, Asked::Every) {
                Ok(closed) => closed.map(|(problem, fix)| format!("{problem}: `{fix}`")),
                Err(error) => Some(format!(
                    "it isn't known what other programs' firewalls close: {error:#}"
                )),
            };
            summary::plan(membership, &options, note)
        })
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }

    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { intercept::owned_rules().revert(&site.host) })
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { intercept::traces(&site.host) })
    }
}

fn problems(state: &InterceptState) -> Problems {
    let code = match state {
        InterceptState::Active { .. } | InterceptState::Absent => Code::RulesWaiting,
        InterceptState::Open { .. } => Code::RulesOpen,
        InterceptState::Failed { .. } => Code::RulesFailed,
    };
    let open_bridge = match state {
        InterceptState::Active { open_bridge, .. } => open_bridge.as_ref(),
        _ => None,
    };
    Problems::default().blocking(code, problem(state)).amiss(
        Code::BridgeOpen,
        open_bridge.map(|error| format!("{OPEN_BRIDGE}: {error}")),
    )
}

fn problem(state: &InterceptState) -> Option<String> {
    match state {
        InterceptState::Active { .. } => None,
        InterceptState::Absent => Some("the interception rules are not in yet: they wait for Envoy".to_owned()),
        InterceptState::Open { reason } => Some(format!(
            "traffic goes past the mesh, as intercept.on_envoy_down = \"open\" wants: {reason}"
        )),
        InterceptState::Failed { error } => Some(format!("the interception rules failed: {error}")),
    }
}

fn line(state: &InterceptState) -> String {
    match state {
        InterceptState::Absent => "no rules".to_owned(),
        InterceptState::Active { backend, rules, .. } => format!("{backend}, {rules} rules"),
        InterceptState::Open { reason } => format!("OPEN, traffic goes past the mesh: {reason}"),
        InterceptState::Failed { error } => format!("FAILED: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_are_not_in_keep_the_vm_from_serving() {
        let reason = || "Envoy died".to_owned();
        for (state, parts) in [
            (InterceptState::Absent, &["rules are not in"][..]),
            (
                InterceptState::Open { reason: reason() },
                &["past the mesh", "on_envoy_down", "Envoy died"],
            ),
            (InterceptState::Failed { error: reason() }, &["failed: Envoy died"]),
        ] {
            let told = problem(&state).unwrap();
            assert!(parts.iter().all(|part| told.contains(part)), "{told}");
        }
        assert_eq!(problem(&active(None)), None);
        assert_eq!(line(&active(None)), "nftables, 21 rules");
    }

    fn active(open_bridge: Option<&str>) -> InterceptState {
        InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 21,
            open_bridge: open_bridge.map(str::to_owned),
        }
    }

    #[test]
    fn bridge_without_rules_is_amiss_and_keeps_no_vm_from_serving() {
        assert_eq!(problems(&active(None)), Problems::default());
        let told = problems(&active(Some("no nft")));
        let words = "other containers on the application's bridge reach it past Envoy: no nft";
        assert_eq!(told.texts(), (vec![], vec![words]));
    }
}
