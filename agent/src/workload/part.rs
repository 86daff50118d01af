//! The application's container as a part.

use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::future::{BoxFuture, join_all};

use super::check;
use super::ended::end_each;
use super::metrics::METRICS;
use super::offline;
use super::options::Options;
use super::ports::{self, Disagreement};
use super::secrets;
use super::supervisor::{Inputs, run};
use crate::config::{Backend, Config, DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT};
use crate::facts::{ByWorkload, ContainerState, Membership, Successor, named};
use crate::part::{
    Changes, Channels, CheckContext, Code, Context, Effect, Metric, Part, Plan, Problems, Question, SHORT, Section,
    Site, State, Task, WorkloadChannels, changes_of,
};
use crate::supervise::Scope;

/// Keeps the container running.
#[derive(Debug)]
pub struct ContainerPart;

const SECTION: State<ByWorkload<ContainerState>> = State {
    key: "container",
    title: "Container",
    live: |channels| channels.by_workload(|it| configured(&it.container.borrow())),
    offline: |_| {
        ByWorkload::Only(ContainerState::Waiting {
            reason: "only a running agent knows".to_owned(),
        })
    },
    lines: |states, _| match states.iter().next() {
        Some(_) => states.lines(line),
        None => vec![line(&ContainerState::NotConfigured)],
    },
};

impl Part for ContainerPart {
    fn name(&self) -> &'static str {
        "container"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let containers = Options::of_each(&site.host, &site.config, Some(&channels.membership()));
        let longest = containers.iter().map(|options| options.config.stop_timeout).max()?;
        let intercepts = site.config.intercept.backend != Backend::None;
        let inputs = |options: &Options, own: &WorkloadChannels| Inputs {
            envoy: channels.envoy.subscribe(),
            intercept: intercepts.then(|| channels.intercept.subscribe()),
            xds: channels.xds.subscribe(),
            liveness: own.liveness.subscribe(),
            called_at: (!options.config.published().is_empty()).then(|| own.called_at.subscribe()),
        };
        let containers = containers.into_iter().filter_map(|options| {
            let own = channels.workloads.iter().find(|it| it.name == options.workload)?;
            let inputs = inputs(&options, own);
            Some((options, inputs, own.clone()))
        });
        let containers = containers.collect();
        Some(Task::new(longest + SHORT, |scope| run_each(scope, containers)))
    }

    fn end_pieces<'a>(&'a self, context: &'a Context, next: &'a Config) -> BoxFuture<'a, ()> {
        let workloads = context
            .site
            .config
            .workloads
            .iter()
            .zip(context.channels.workloads.iter());
        let gone = workloads.filter_map(|(workload, channels)| {
            let container = workload.container.as_ref()?;
            let mut others = next.workloads.containers();
            others
                .all(|other| other.name != container.name)
                .then_some((channels, container.stop_timeout + SHORT))
        });
        Box::pin(end_each(gone.collect(), |channels| channels.container.subscribe()))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        let containers = channels.workloads.iter().map(|it| changes_of(&it.container));
        containers.chain([changes_of(&channels.membership)]).collect()
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let channels = &context.channels;
        let states = channels.by_workload(|it| configured(&it.container.borrow()));
        let exposed = |name: &str| match states.of(name) {
            Some(ContainerState::Running { exposed, .. }) => exposed.clone(),
            _ => Vec::new(),
        };
        let disagreement = disagreement(&context.site.config, exposed, &channels.membership());
        let problems = states
            .iter()
            .map(|(name, state)| problems(name, state).amiss_where(channels.is_pending(name)));
        let problems = problems.fold(Problems::default(), Problems::with);
        problems.amiss(Code::PortsDisagree, disagreement)
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        Box::pin(async {
            let containers = Options::of_each(&site.host, &site.config, None);
            if containers.is_empty() {
                return Ok(Plan::default());
            }
            let plan = offline::plan(&containers).await?;
            let exposed = check::exposed(&site.config).await;
            let exposed = |name: &str| exposed.get(name).cloned().unwrap_or_default();
            let disagreement = disagreement(&site.config, exposed, membership);
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
            secrets::remove_all(&site.host, &site.config.paths)
        })
    }

    fn traces<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<Vec<String>>> {
        Box::pin(async { offline::traces(dockerd(site).0).await })
    }
}

/// Runs the containers beside each other. Each has the whole time to end.
pub(super) async fn run_each(scope: Scope, containers: Vec<(Options, Inputs, WorkloadChannels)>) -> Result<()> {
    let each = containers.into_iter().map(|(options, inputs, channels)| {
        let piece = scope.until(channels.gone.clone());
        async move {
            let ended = run(piece, options, inputs, channels.container.clone()).await;
            if channels.gone.is_cancelled() {
                channels.container.send_replace(ContainerState::NotConfigured);
            }
            ended
        }
    });
    join_all(each).await.into_iter().collect()
}

/// The state of a container that there is to be.
fn configured(state: &ContainerState) -> Option<ContainerState> {
    (*state != ContainerState::NotConfigured).then(|| state.clone())
}

/// The socket of the dockerd that may have containers of the agent's, and the time that each is given to stop.
fn dockerd(site: &Site) -> (&str, Duration) {
    let containers = site.config.workloads.containers();
    let longest = containers.max_by_key(|container| container.stop_timeout);
    longest.map_or((DEFAULT_SOCKET, DEFAULT_STOP_TIMEOUT), |container| {
        (&container.docker_socket, container.stop_timeout)
    })
}

/// The first two places that name other ports of the applications, with the remedy.
fn disagreement(config: &Config, exposed: impl Fn(&str) -> Vec<u16>, membership: &Membership) -> Option<String> {
    let Disagreement { text, fix } = ports::disagreement(config, exposed, membership)?;
    Some(format!("{text}: {fix}"))
}

/// The problems of one container; `name` is that of its application where there are several.
fn problems(name: Option<&str>, state: &ContainerState) -> Problems {
    let code = match *state {
        ContainerState::Failed { .. } => Code::ContainerFailed,
        _ => Code::ContainerWaiting,
    };
    let told = |words: Option<String>| words.map(|words| named(name, &words));
    Problems::default()
        .blocking(code, told(problem(state)))
        .amiss(Code::ContainerUnwell, told(trouble(state)))
        .amiss(Code::ContainerSuccessor, told(state.successor().and_then(unfit)))
}

fn problem(state: &ContainerState) -> Option<String> {
    match state {
        ContainerState::NotConfigured | ContainerState::Running { .. } => None,
        ContainerState::Waiting { reason } => Some(format!("the container is not started: {reason}")),
        ContainerState::Leaving { .. } => Some("callers are sent elsewhere: the container is replaced".to_owned()),
        ContainerState::Failed { error, .. } => Some(format!("the container does not run: {error}")),
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
        ContainerState::Failed { error, .. } => format!("FAILED: {error}"),
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
        let failed = ContainerState::Failed { error, gone: true };
        assert_eq!(
            problem(&failed).unwrap(),
            "the container does not run: exited with status 1"
        );
        assert_eq!(problem(&ContainerState::NotConfigured), None);
    }
}
