//! The application's life as a part.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::sync::watch;

use super::liveness::{self, Application, Options};
use crate::facts::{ByWorkload, LivenessState, Membership, named};
use crate::part::{
    Changes, Channels, Code, Context, Part, Problems, SHORT, Section, State, Task, WorkloadChannels, changes_of,
};
use crate::supervise::Scope;

/// Asks whether the application has started, and whether it lives.
#[derive(Debug)]
pub struct LivenessPart;

const SECTION: State<ByWorkload<LivenessState>> = State {
    key: "liveness",
    title: "Liveness",
    live: |channels| channels.by_workload(|it| configured(&it.liveness.borrow())),
    offline: |_| ByWorkload::default(),
    lines: |states, _| match states.iter().next() {
        Some(_) => states.lines(line),
        None => vec![line(&LivenessState::NotConfigured)],
    },
};

impl Part for LivenessPart {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let workloads = site.config.workloads.iter().zip(channels.workloads.iter());
        let asked = workloads.filter_map(|(workload, channels)| {
            let [startup, liveness] = site.config.life_of(workload);
            let container = workload.container.as_ref();
            let options = Options {
                startup,
                liveness,
                ports: container.map(|it| it.published().to_vec()).unwrap_or_default(),
                unit: site.units.agent.clone(),
            };
            let is_asked = options.startup.is_some() || options.liveness.is_some();
            is_asked.then(|| (options, channels.clone()))
        });
        let asked: Vec<_> = asked.collect();
        let membership = channels.membership.clone();
        (!asked.is_empty()).then(|| Task::new(SHORT, |scope| run_each(scope, asked, membership)))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        channels.workloads.iter().map(|it| changes_of(&it.liveness)).collect()
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let states = context.channels.by_workload(|it| configured(&it.liveness.borrow()));
        let problems = states.iter().map(|(name, state)| problems(name, state));
        problems.fold(Problems::default(), Problems::with)
    }
}

/// Asks each application beside the others.
async fn run_each(
    scope: Scope,
    asked: Vec<(Options, WorkloadChannels)>,
    membership: watch::Sender<Arc<Membership>>,
) -> Result<()> {
    let each = asked.into_iter().map(|(options, channels)| {
        let application = Application {
            container: channels.container.subscribe(),
            service: channels.service.subscribe(),
        };
        liveness::run(
            scope.clone(),
            options,
            application,
            membership.subscribe(),
            channels.liveness,
        )
    });
    try_join_all(each).await.map(drop)
}

/// The life of an application that is asked about it.
fn configured(state: &LivenessState) -> Option<LivenessState> {
    (*state != LivenessState::NotConfigured).then(|| state.clone())
}

/// The problems of one application; `name` is its name where there are several.
fn problems(name: Option<&str>, state: &LivenessState) -> Problems {
    let problems = Problems::default();
    match state {
        LivenessState::NotConfigured | LivenessState::Alive => problems,
        LivenessState::Starting => problems.amiss(
            Code::ProbePending,
            [named(name, "the startup probe has not succeeded yet")],
        ),
        LivenessState::Failed { reason } => problems.amiss(
            Code::ProbeFailing,
            [named(name, &format!("the application is started again: {reason}"))],
        ),
    }
}

fn line(state: &LivenessState) -> String {
    match state {
        LivenessState::NotConfigured => "not probed: [health.liveness_probe] is not set".to_owned(),
        LivenessState::Starting => "the startup probe has not succeeded yet".to_owned(),
        LivenessState::Alive => "alive".to_owned(),
        LivenessState::Failed { reason } => format!("FAILED: {reason}"),
    }
}
