//! The application's life as a part.

use std::time::SystemTime;

use super::liveness::{self, Application, Options};
use crate::facts::LivenessState;
use crate::part::{Changes, Channels, Code, Context, Part, Problems, SHORT, Section, State, Task, changes_of};

/// Asks whether the application has started, and whether it lives.
#[derive(Debug)]
pub struct LivenessPart;

const SECTION: State<LivenessState> = State {
    key: "liveness",
    title: "Liveness",
    live: |channels| channels.liveness.borrow().clone(),
    offline: |_| LivenessState::NotConfigured,
    lines: |state, _| vec![line(state)],
};

impl Part for LivenessPart {
    fn name(&self) -> &'static str {
        "liveness"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let health = &site.config.health;
        let container = site.config.workload.container.as_ref();
        let options = Options {
            startup: health.startup_probe.as_ref().map(|probe| probe.0.clone()),
            liveness: health.liveness_probe.as_ref().map(|probe| probe.0.clone()),
            ports: container
                .map(|container| container.published().to_vec())
                .unwrap_or_default(),
            unit: site.units.agent.clone(),
        };
        if options.startup.is_none() && options.liveness.is_none() {
            return None;
        }
        let application = Application {
            container: channels.container.subscribe(),
            service: channels.service.subscribe(),
        };
        let (membership, publish) = (channels.membership.subscribe(), channels.liveness.clone());
        Some(Task::new(SHORT, |scope| {
            liveness::run(scope, options, application, membership, publish)
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.liveness)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        let problems = Problems::default();
        match &*context.channels.liveness.borrow() {
            LivenessState::NotConfigured | LivenessState::Alive => problems,
            LivenessState::Starting => problems.amiss(
                Code::ProbePending,
                ["the startup probe has not succeeded yet".to_owned()],
            ),
            LivenessState::Failed { reason } => problems.amiss(
                Code::ProbeFailing,
                [format!("the application is started again: {reason}")],
            ),
        }
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
