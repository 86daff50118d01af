//! The chain of what a call meets, and the first fault in it.

use serde::Serialize;

use super::cause::Cause;

/// Subject of the steps at Envoy's listeners, either way.
pub(super) const LISTENER: &str = "listener";

/// Outcome of a step.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Level {
    /// The step is as it should be.
    Ok,
    /// Worth knowing.
    Note,
    /// May be why some calls fail.
    Suspect,
    /// Why the call fails.
    Fault,
}

/// One thing that the call meets, with the evidence of how it is.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Step {
    /// Subject of the step: `name`, `rules`, `envoy`, …
    pub(super) subject: &'static str,
    pub(super) level: Level,
    pub(super) evidence: String,
    pub(super) cause: Option<Cause>,
    /// Remedy, where there is one.
    pub(super) remedy: Option<String>,
}

/// The steps in the order in which a call meets them.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Chain {
    pub(super) steps: Vec<Step>,
}

impl Chain {
    pub(super) fn ok(&mut self, subject: &'static str, evidence: impl Into<String>) {
        self.push(subject, Level::Ok, evidence.into(), None);
    }

    pub(super) fn note(&mut self, subject: &'static str, evidence: impl Into<String>) {
        self.push(subject, Level::Note, evidence.into(), None);
    }

    pub(super) fn suspect(
        &mut self,
        subject: &'static str,
        cause: Cause,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(subject, Level::Suspect, evidence.into(), Some((cause, remedy.into())));
    }

    pub(super) fn fault(
        &mut self,
        subject: &'static str,
        cause: Cause,
        evidence: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.push(subject, Level::Fault, evidence.into(), Some((cause, remedy.into())));
    }

    fn push(&mut self, subject: &'static str, level: Level, evidence: String, cause: Option<(Cause, String)>) {
        let (cause, remedy) = cause.unzip();
        self.steps.push(Step {
            subject,
            level,
            evidence,
            cause,
            remedy,
        });
    }

    /// The step that decides: the first fault, else the first that may be one.
    pub(super) fn decision(&self) -> Option<&Step> {
        let first = |level| self.steps.iter().find(|step| step.level == level);
        first(Level::Fault).or_else(|| first(Level::Suspect))
    }
}
