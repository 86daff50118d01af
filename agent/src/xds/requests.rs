//! From Envoy to istiod, and between Envoy's requests the agent's own.
//!
//! istiod knows who asks by the node in the first request, so nothing of the agent's may come first: it follows
//! Envoy's first request for listeners, as pilot-agent's does (istio/pkg/istio-agent/xds_proxy.go).

use istio_api::frame::{Form, Frame};
use tokio::sync::{mpsc, watch};
use tonic::{Status, Streaming};

use super::nacks::{Nacks, Verdict};
use super::own_types;
use super::report::Report;
use super::upstream::Progress;
use crate::facts::ProbeState;

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Requests that are kept for another try; Envoy sends about three before it needs an answer.
const MAX_UNANSWERED: usize = 64;

/// The direction towards istiod.
#[derive(Debug)]
pub(super) struct Requests<'a> {
    pub(super) form: Form,
    /// Whether anything here answers DNS.
    pub(super) wants_names: bool,
    pub(super) report: &'a Report,
    pub(super) from_envoy: &'a mut Streaming<Frame>,
    pub(super) unanswered: &'a mut Vec<Frame>,
    pub(super) probe: watch::Receiver<ProbeState>,
    pub(super) progress: watch::Receiver<Progress>,
    pub(super) to_istiod: mpsc::Sender<Frame>,
}

/// What was said on this stream.
#[derive(Debug, Default)]
struct Said {
    /// Whether Envoy has asked for listeners, and so the agent's own requests may go out.
    introduced: bool,
    /// The last word on the application's health.
    healthy: Option<bool>,
    acknowledgement: Option<Frame>,
    nacks: Nacks,
}

impl Requests<'_> {
    /// Relays until Envoy ends its stream; returns what it is told.
    pub(super) async fn pump(mut self) -> Status {
        match self.relay().await {
            Ok(()) => Status::cancelled("Envoy closed its stream"),
            Err(status) => status,
        }
    }

    async fn relay(&mut self) -> Result<(), Status> {
        let mut said = Said::default();
        for frame in self.unanswered.clone() {
            self.forward(&mut said, frame).await?;
        }
        loop {
            let room = self.progress.borrow().answered || self.unanswered.len() < MAX_UNANSWERED;
            tokio::select! {
                message = self.from_envoy.message(), if room => {
                    let Some(frame) = message? else { return Ok(()) };
                    if !self.progress.borrow().answered {
                        self.unanswered.push(frame.clone());
                    }
                    self.forward(&mut said, frame).await?;
                }
                Ok(()) = self.progress.changed() => self.follow_progress(&mut said).await,
                Ok(()) = self.probe.changed(), if said.introduced => self.tell_health(&mut said).await,
                else => std::future::pending().await,
            }
        }
    }

    /// Passes on a request of Envoy's, and introduces the agent after the first one for listeners.
    async fn forward(&mut self, said: &mut Said, frame: Frame) -> Result<(), Status> {
        let head = frame
            .request(self.form)
            .map_err(|error| Status::invalid_argument(format!("no discovery request: {error}")))?;
        match said.nacks.judge(&head) {
            Some(Verdict::Refused(message)) => self.report.refused(&head.type_url, message),
            Some(Verdict::Accepted) => self.report.accepted(&head.type_url),
            None => {}
        }
        self.send(frame).await;
        if head.type_url == LISTENER && !said.introduced {
            said.introduced = true;
            if self.wants_names {
                self.send(own_types::ask_for_names(self.form)).await;
            }
            self.tell_health(said).await;
        }
        Ok(())
    }

    async fn follow_progress(&mut self, said: &mut Said) {
        let answer = {
            let progress = self.progress.borrow_and_update();
            if progress.answered {
                self.unanswered.clear();
            }
            progress.acknowledgement.clone()
        };
        if said.acknowledgement != answer {
            said.acknowledgement.clone_from(&answer);
            if let Some(answer) = answer {
                self.send(answer).await;
            }
        }
    }

    /// Says whether the application is healthy when that differs from what istiod was told; another reason for
    /// being unhealthy is not worth a write to its WorkloadEntry.
    async fn tell_health(&mut self, said: &mut Said) {
        let state = self.probe.borrow_and_update().clone();
        let (healthy, failure) = match state {
            ProbeState::Healthy => (true, None),
            ProbeState::Unhealthy { reason } => (false, Some(reason)),
            ProbeState::NotConfigured | ProbeState::Unknown => return,
        };
        if said.healthy != Some(healthy) {
            said.healthy = Some(healthy);
            self.send(own_types::health(self.form, failure)).await;
        }
    }

    async fn send(&self, frame: Frame) {
        if self.to_istiod.send(frame).await.is_err() {
            // The call is over; the other direction knows why, and ends this one.
            std::future::pending::<()>().await;
        }
    }
}
