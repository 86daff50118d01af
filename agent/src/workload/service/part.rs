//! The application's service as a part.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::check;
use super::metrics::METRICS;
use super::supervisor::run;
use super::unit::{self, Standing, Unit};
use crate::config::{Backend, Config};
use crate::facts::{Membership, ServiceState};
use crate::part::{
    Change, Changes, Channels, CheckContext, Code, Context, Effect, Metric, Part, Plan, Problems, Question, SHORT,
    Section, Site, State, Task, changes_of,
};
use crate::workload::gate::Gate;

/// Keeps the service running.
#[derive(Debug)]
pub struct ServicePart;

const SECTION: State<ServiceState> = State {
    key: "service",
    title: "Service",
    live: |channels| channels.service.borrow().clone(),
    offline: |_| ServiceState::Waiting {
        reason: "only a running agent knows".to_owned(),
    },
    lines: |state, _| vec![line(state)],
};

impl Part for ServicePart {
    fn name(&self) -> &'static str {
        "service"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let config = site.config.workload.service.clone()?;
        let grace = config.stop_timeout + unit::OVERHEAD + SHORT;
        let intercepts = site.config.intercept.backend != Backend::None;
        let gate = Gate::new(
            channels.envoy.subscribe(),
            intercepts.then(|| channels.intercept.subscribe()),
        );
        let (host, publish) = (site.host.clone(), channels.service.clone());
        let liveness = channels.liveness.subscribe();
        Some(Task::new(grace, |scope| {
            run(scope, host, config, gate, liveness, publish)
        }))
    }

    fn is_gone(&self, now: &Config, next: &Config) -> bool {
        let unit = |config: &Config| config.workload.service.as_ref().map(|service| service.unit.clone());
        unit(now) != unit(next)
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.service)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        problems(&context.channels.service.borrow())
    }

    fn plan<'a>(&'a self, site: &'a Site, _: &'a Membership) -> BoxFuture<'a, Result<Plan>> {
        let Some(service) = site.config.workload.service.clone() else {
            return Box::pin(async { Ok(Plan::default()) });
        };
        Box::pin(site.host.blocking(move |host| {
            let mut plan = Plan::default();
            let found = Unit::look(host, &service.unit)?;
            if matches!(found.standing(), Standing::Ended(_)) {
                let what = format!("the service {}", service.unit);
                plan.changes.push(Change::new("service", format!("+ start {what}")));
                plan = plan.effect(Effect::Starts, what);
            }
            Ok(plan)
        }))
    }

    fn questions(&self, context: &CheckContext) -> Vec<Question> {
        check::questions(context)
    }

    /// The service stops with the mesh, as it is to be called through that alone.
    fn revert<'a>(&'a self, site: &'a Site) -> BoxFuture<'a, Result<()>> {
        let Some(service) = site.config.workload.service.clone() else {
            return Box::pin(async { Ok(()) });
        };
        Box::pin(
            site.host
                .blocking(move |host| match Unit::look(host, &service.unit)?.standing() {
                    Standing::Ended(_) => Ok(()),
                    Standing::Serves(_) | Standing::Changes(_) => unit::stop(host, &service.unit, service.stop_timeout),
                }),
        )
    }
}

fn problems(state: &ServiceState) -> Problems {
    let problems = Problems::default();
    match state {
        ServiceState::NotConfigured | ServiceState::Running { .. } => problems,
        ServiceState::Waiting { reason } => problems.blocking(
            Code::ServiceWaiting,
            [format!("the application's service is not started: {reason}")],
        ),
        ServiceState::Failed { error } => problems.blocking(
            Code::ServiceFailed,
            [format!("the application's service does not run: {error}")],
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
