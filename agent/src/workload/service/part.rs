//! The application's service as a part.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};

use super::check;
use super::metrics::METRICS;
use super::supervisor::run;
use super::unit::{self, Unit, UnitState};
use crate::config::{Backend, Config, ServiceConfig};
use crate::facts::{ByWorkload, Membership, ServiceState, named};
use crate::host::Host;
use crate::part::{
    Change, Changes, Channels, CheckContext, Code, Context, Effect, Metric, Part, Plan, Problems, Question, SHORT,
    Section, Site, State, Task, WorkloadChannels, changes_of,
};
use crate::supervise::Scope;
use crate::workload::ended::end_each;
use crate::workload::gate::Gate;

/// Keeps the service running.
#[derive(Debug)]
pub struct ServicePart;

const SECTION: State<ByWorkload<ServiceState>> = State {
    key: "service",
    title: "Service",
    live: |channels| channels.by_workload(|it| configured(&it.service.borrow())),
    offline: |_| {
        ByWorkload::Only(ServiceState::Waiting {
            reason: "only a running agent knows".to_owned(),
        })
    },
    lines: |states, _| match states.iter().next() {
        Some(_) => states.lines(line),
        None => vec![line(&ServiceState::NotConfigured)],
    },
};

impl Part for ServicePart {
    fn name(&self) -> &'static str {
        "service"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let services = site.config.workloads.services();
        let longest = services.map(|service| service.stop_timeout).max()?;
        let intercepts = site.config.intercept.backend != Backend::None;
        let gate = Gate::new(
            channels.envoy.subscribe(),
            intercepts.then(|| channels.intercept.subscribe()),
        );
        let workloads = site.config.workloads.iter().zip(channels.workloads.iter());
        let services = workloads.filter_map(|(workload, channels)| Some((workload.service.clone()?, channels.clone())));
        let (services, host) = (services.collect(), site.host.clone());
        Some(Task::new(longest + unit::OVERHEAD + SHORT, |scope| {
            run_each(scope, host, gate, services)
        }))
    }

    fn end_pieces<'a>(&'a self, context: &'a Context, next: &'a Config) -> BoxFuture<'a, ()> {
        let workloads = context
            .site
            .config
            .workloads
            .iter()
            .zip(context.channels.workloads.iter());
        let gone = workloads.filter_map(|(workload, channels)| {
            let service = workload.service.as_ref()?;
            let mut others = next.workloads.services();
            others
                .all(|other| other.unit != service.unit)
                .then_some((channels, service.stop_timeout + unit::OVERHEAD + SHORT))
        });
        Box::pin(end_each(gone.collect(), |channels| channels.service.subscribe()))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        channels.workloads.iter().map(|it| changes_of(&it.service)).collect()
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let states = context.channels.by_workload(|it| configured(&it.service.borrow()));
        let problems = states
            .iter()
            .map(|(name, state)| problems(name, state).amiss_where(context.channels.is_pending(name)));
        problems.fold(Problems::default(), Problems::with)
    }

    fn plan<'a>(&'a self, site: &'a Site, _: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        let services = services(site);
        Box::pin(site.host.blocking(move |host| {
            let mut plan = Plan::default();
            for service in services {
                let found = Unit::look(host, &service.unit)?;
                if matches!(found.state(), UnitState::Ended(_)) {
                    let what = format!("the service {}", service.unit);
                    plan.changes.push(Change::new("service", format!("+ start {what}")));
                    plan = plan.effect(Effect::Starts, what);
                }
            }
            Ok(plan)
        }))
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }

    /// Services stop with the mesh, as they are to be called through that alone.
    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        let stopped = services(site).into_iter().map(|service| {
            site.host
                .blocking(move |host| match Unit::look(host, &service.unit)?.state() {
                    UnitState::Ended(_) => Ok(()),
                    UnitState::Serves(_) | UnitState::Changes(_) => {
                        unit::stop(host, &service.unit, service.stop_timeout)
                    }
                })
        });
        Box::pin(join_all(stopped).map(|stopped| stopped.into_iter().collect()))
    }
}

fn services(site: &Site) -> Vec<ServiceConfig> {
    site.config.workloads.services().cloned().collect()
}

/// Keeps the services going beside each other. Each has the whole time to end.
async fn run_each(
    scope: Scope,
    host: Host,
    gate: Gate,
    services: Vec<(ServiceConfig, WorkloadChannels)>,
) -> Result<()> {
    let each = services.into_iter().map(|(config, channels)| {
        let piece = scope.until(channels.gone.clone());
        let (host, gate, liveness) = (host.clone(), gate.clone(), channels.liveness.subscribe());
        async move {
            let ended = run(piece, host, config, gate, liveness, channels.service.clone()).await;
            if channels.gone.is_cancelled() {
                channels.service.send_replace(ServiceState::NotConfigured);
            }
            ended
        }
    });
    join_all(each).await.into_iter().collect()
}

/// The state of a service that there is to be.
fn configured(state: &ServiceState) -> Option<ServiceState> {
    (*state != ServiceState::NotConfigured).then(|| state.clone())
}

/// The problems of one service; `name` is that of its application where there are several.
fn problems(name: Option<&str>, state: &ServiceState) -> Problems {
    let problems = Problems::default();
    match state {
        ServiceState::NotConfigured | ServiceState::Running { .. } => problems,
        ServiceState::Waiting { reason } => problems.blocking(
            Code::ServiceWaiting,
            [named(
                name,
                &format!("the application's service is not started: {reason}"),
            )],
        ),
        ServiceState::Failed { error } => problems.blocking(
            Code::ServiceFailed,
            [named(name, &format!("the application's service does not run: {error}"))],
        ),
    }
}

fn line(state: &ServiceState) -> String {
    match state {
        ServiceState::NotConfigured => "none configured".to_owned(),
        ServiceState::Waiting { reason } => format!("waiting: {reason}"),
        ServiceState::Running { unit, pid, restarts } => {
            format!("{unit} runs, process {pid}, restarted {restarts} times")
        }
        ServiceState::Failed { error } => format!("FAILED: {error}"),
    }
}
