//! The moment from which the application may be started: nobody can call it around Envoy any more.

use anyhow::{Context, Result};
use tokio::sync::watch;

use crate::facts::{EnvoyState, InterceptState};

/// Open once Envoy was ready, and while the rules are in.
#[derive(Clone, Debug)]
pub(super) struct Gate {
    /// Envoy's state; `None` once it was ready: an Envoy that dies later comes back behind rules that are still in.
    envoy: Option<watch::Receiver<EnvoyState>>,
    /// The rules; `None` when the agent redirects nothing.
    intercept: Option<watch::Receiver<InterceptState>>,
}

impl Gate {
    pub(super) fn new(envoy: watch::Receiver<EnvoyState>, intercept: Option<watch::Receiver<InterceptState>>) -> Self {
        Self {
            envoy: Some(envoy),
            intercept,
        }
    }

    /// The thing that keeps it closed; `None` while it is open.
    pub(super) fn closed_by(&mut self) -> Option<&'static str> {
        if let Some(envoy) = &mut self.envoy
            && !envoy.borrow_and_update().is_ready()
        {
            return Some("Envoy to be ready");
        }
        self.envoy = None;
        let intercept = self.intercept.as_mut();
        let is_guarded = intercept.is_none_or(|intercept| is_guarded(&intercept.borrow_and_update()));
        (!is_guarded).then_some("the interception rules")
    }

    /// Waits until what keeps it closed has changed.
    ///
    /// # Errors
    /// When a task that it follows is gone.
    pub(super) async fn changed(&mut self) -> Result<()> {
        match (&mut self.envoy, &mut self.intercept) {
            (Some(envoy), _) => envoy.changed().await.context("Envoy's task is gone"),
            (None, Some(intercept)) => intercept.changed().await.context("the interception's task is gone"),
            (None, None) => Ok(()),
        }
    }
}

/// True when calls to the VM go through Envoy, or the operator wants them not to.
fn is_guarded(intercept: &InterceptState) -> bool {
    matches!(intercept, InterceptState::Active { .. } | InterceptState::Open { .. })
}
