//! The application's probe as a part.

use std::time::SystemTime;

use anyhow::Result;
use futures_util::future::BoxFuture;

use super::probe;
use crate::facts::{Membership, ProbeState};
use crate::part::{
    Change, Changes, Channels, Context, Finding, Part, Problems, SHORT, Section, Site, State, Task, changes_of,
};

/// Probes the application.
#[derive(Debug)]
pub struct ProbePart;

const SECTION: State<ProbeState> = State {
    key: "probe",
    title: "Probe",
    live: |channels| channels.probe.borrow().clone(),
    offline: |_| ProbeState::Unknown,
    lines: |state, _| vec![line(state)],
};

impl Part for ProbePart {
    fn name(&self) -> &'static str {
        "probe"
    }

    fn task(&self, context: &Context) -> Option<Task> {
        let (site, channels) = (&context.site, &context.channels);
        let theirs = channels.membership().probe.clone();
        let (probe, refused) = site.config.health.choose(theirs.as_ref())?;
        let unit = site.units.agent.clone();
        let options = probe::Options { probe, refused, unit };
        let (membership, envoy) = (channels.membership.subscribe(), channels.envoy.subscribe());
        let publish = channels.probe.clone();
        Some(Task::new(SHORT, |scope| {
            probe::run(scope, options, membership, envoy, publish)
        }))
    }

    fn sections(&self) -> Vec<Box<dyn Section>> {
        vec![Box::new(SECTION)]
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.probe)]
    }

    fn problems(&self, context: &Context, _now: SystemTime) -> Problems {
        Problems::default().amiss(problem(&context.channels.probe.borrow()))
    }

    fn plan<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async {
            let chosen = site.config.health.choose(membership.probe.as_ref());
            let refused = chosen.and_then(|(_, refused)| refused);
            Ok(refused.map(|reason| Change {
                name: self.name(),
                diff: format!("not asked: {reason}"),
            }))
        })
    }

    fn check<'a>(&'a self, site: &'a Site, membership: &'a Membership) -> BoxFuture<'a, Vec<Finding>> {
        Box::pin(async { finding(site, membership).into_iter().collect() })
    }
}

/// A probe that is not asked keeps the application from ever being taken for healthy.
fn finding(site: &Site, membership: &Membership) -> Option<Finding> {
    let (_, refused) = site.config.health.choose(membership.probe.as_ref())?;
    refused.map(|reason| Finding::failed("probe", reason))
}

fn problem(state: &ProbeState) -> Option<String> {
    match state {
        ProbeState::NotConfigured | ProbeState::Healthy => None,
        ProbeState::Unknown => Some("the application has not been judged yet: the mesh sends it nothing".to_owned()),
        ProbeState::Unhealthy { reason } => Some(format!(
            "the application fails its health probe, so the mesh sends it nothing: {reason}"
        )),
    }
}

fn line(state: &ProbeState) -> String {
    match state {
        ProbeState::NotConfigured => "none configured".to_owned(),
        ProbeState::Unknown => "no result yet".to_owned(),
        ProbeState::Healthy => "healthy".to_owned(),
        ProbeState::Unhealthy { reason } => format!("UNHEALTHY: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unhealthy_application_is_told_with_its_reason() {
        let reason = "answers NOT_SERVING".to_owned();
        let told = problem(&ProbeState::Unhealthy { reason }).unwrap();
        assert!(told.contains("health probe") && told.ends_with("NOT_SERVING"), "{told}");
        assert_eq!(problem(&ProbeState::Healthy), None);
        assert_eq!(problem(&ProbeState::NotConfigured), None);
    }
}
