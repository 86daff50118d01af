//! The application's container as a part.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::check;
use super::metrics::METRICS;
use super::offline;
use super::options::Options;
use super::ports::{self, Disagreement};
use super::secrets;
use super::supervisor::{Inputs, run};
use crate::config::{Backend, Config, DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT};
use crate::facts::{ContainerState, Membership, Successor};
use crate::part::{
    Changes, Channels, CheckContext, Code, Context, Effect, Metric, Part, Plan, Problems, Question, SHORT, Section,
    Site, State, Task, changes_of,
};

/// Keeps the container running.
#[derive(Debug)]
pub struct ContainerPart;

const SECTION: State<ContainerState> = State {
    key: "container",
    title: "Container",
    live: |channels| channels.container.borrow().clone(),
    offline: |_| ContainerState::Waiting {
        reason: "only a running agent knows".to_owned(),
    },
    lines: |state, _| vec![line(state)],
};

impl Part for ContainerPart {
    fn name(&self) -> &'static str {
        "container"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let options = Options::of(&site.host, &site.config, Some(&channels.membership()))?;
        let grace = options.config.stop_timeout + SHORT;
        let intercepts = site.config.intercept.backend != Backend::None;
        let inputs = Inputs {
            envoy: channels.envoy.subscribe(),
            intercept: intercepts.then(|| channels.intercept.subscribe()),
            xds: channels.xds.subscribe(),
            liveness: channels.liveness.subscribe(),
        };
        let publish = channels.container.clone();
        Some(Task::new(grace, |scope| run(scope, options, inputs, publish)))
    }

    fn is_gone(&self, now: &Config, next: &Config) -> bool {
        let name = |config: &Config| {
            config
                .workload
                .container
                .as_ref()
                .map(|container| container.name.clone())
        };
        name(now) != name(next)
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.container), changes_of(&channels.membership)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let state = context.channels.container.borrow();
        let code = match *state {
            ContainerState::Failed { .. } => Code::ContainerFailed,
            _ => Code::ContainerWaiting,
        };
        let exposed = match &*state {
            ContainerState::Running { exposed, .. } => exposed.as_slice(),
            _ => &[],
        };
        let disagreement = disagreement(&context.site.config, exposed, &context.channels.membership());
        Problems::default()
            .blocking(code, problem(&state))
            .amiss(Code::PortsDisagree, disagreement)
            .amiss(Code::ContainerUnwell, trouble(&state))
            .amiss(Code::ContainerSuccessor, state.successor().and_then(unfit))
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            let Some(options) = Options::of(&site.host, &site.config, None) else {
                return Ok(Plan::default());
            };
            let plan = offline::plan(&options).await?;
            let exposed = check::exposed(&options.config).await;
            let disagreement = disagreement(&site.config, &exposed, membership);
            Ok(disagreement.into_iter().fold(plan, |plan, text| {
                plan.effect(Effect::LeavesAlone, format!("ports that don't agree: {text}"))
            }))
        })
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }

    /// Containers are found by their labels, whether one is configured or not.
    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        Box::pin(async {
            let (socket, grace) = dockerd(site);
            offline::remove(socket, grace).await?;
            secrets::remove(&site.host, &site.config.paths)
        })
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { offline::traces(dockerd(site).0).await })
    }
}

/// The socket of the dockerd that may have containers of the agent's, and the time that one is given to stop.
fn dockerd(site: &Site) -> (&str, Duration) {
    match &site.config.workload.container {
        Some(container) => (&container.docker_socket, container.stop_timeout),
        None => (DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT),
    }
}

/// The first two places that name other ports of the application, with the remedy.
fn disagreement(config: &Config, exposed: &[u16], membership: &Membership) -> Option<String> {
    let container = config.workload.container.as_ref()?;
    let probe = config.health.choose(membership.probe.as_ref());
    let probe = probe.as_ref().map(|(probe, _)| probe);
    let Disagreement { text, fix } = ports::disagreement(container, exposed, membership, probe)?;
    Some(format!("{text}: {fix}"))
}

fn problem(state: &ContainerState) -> Option<String> {
    match state {
        ContainerState::NotConfigured | ContainerState::Running { .. } => None,
        ContainerState::Waiting { reason } => Some(format!("the container is not started: {reason}")),
        ContainerState::Leaving { .. } => Some("callers are sent elsewhere: the container is replaced".to_owned()),
        ContainerState::Failed { error } => Some(format!("the container does not run: {error}")),
    }
}

fn trouble(state: &ContainerState) -> Option<String> {
    match state {
        ContainerState::Running { trouble, .. } => trouble
            .as_ref()
            .map(|reason| format!("the container runs, and {reason}")),
        _ => None,
    }
}

/// The problem of a container that failed to take over.
fn unfit(successor: &Successor) -> Option<String> {
    let reason = successor.failed.as_ref()?;
    Some(format!(
        "the configured container does not take over, and the one before it runs: {reason}"
    ))
}

fn line(state: &ContainerState) -> String {
    match state {
        ContainerState::NotConfigured => "none configured".to_owned(),
        ContainerState::Waiting { reason } => format!("waiting: {reason}"),
        ContainerState::Leaving { id } => format!("replaced once callers have gone elsewhere, {id}"),
        ContainerState::Running {
            id,
            restarts,
            outdated,
            successor,
            trouble,
            ..
        } => {
            let rights = match outdated {
                true => ", with more rights than its next start will give it",
                false => "",
            };
            let next = match successor {
                Some(successor) => format!("; another one is to take over: {}", successor.cause()),
                None => String::new(),
            };
            let unwell = trouble
                .as_ref()
                .map_or_else(String::new, |reason| format!("; {reason}"));
            format!("running, {id}, restarted {restarts} times{rights}{unwell}{next}")
        }
        ContainerState::Failed { error } => format!("FAILED: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_that_does_not_run_keeps_the_vm_from_serving() {
        let reason = "pulling web:1".to_owned();
        let waiting = ContainerState::Waiting { reason };
        assert_eq!(
            problem(&waiting).unwrap(),
            "the container is not started: pulling web:1"
        );
        let error = "exited with status 1".to_owned();
        let failed = ContainerState::Failed { error };
        assert_eq!(
            problem(&failed).unwrap(),
            "the container does not run: exited with status 1"
        );
        assert_eq!(problem(&ContainerState::NotConfigured), None);
    }
}
