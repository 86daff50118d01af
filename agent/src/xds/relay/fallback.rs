//! The fall back to the snapshot: of an Envoy that began with nothing, when no istiod answers; at once of one that follows an
//! Envoy which has died.
//!
//! What the former one had is newer than all else that is here, and istiod takes longer to say it again than Envoy to read
//! it. So it is given first, and istiod sends the difference. An Envoy that dies before istiod has spoken may have died of
//! it: the next one waits for istiod.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Error;
use bytes::Bytes;
use istio_api::frame::XdsProtocol;
use tokio::time::{Instant, Sleep, sleep};

use crate::xds::conversation::Conversation;
use crate::xds::node;
use crate::xds::snapshot::peer::SnapshotPeer;
use crate::xds::upstream::Upstream;
use crate::xds::{Context, STEADY_AFTER};

/// Time for which an Envoy that has nothing waits for istiod, unless all control planes have failed before. An istiod that
/// is well answers within some 100 ms, so that an old configuration is not served beside it; and of the 3 s in which a
/// VM is to be ready, Envoy's own start takes one.
const ISTIOD_TIMEOUT: Duration = Duration::from_secs(1);

/// The fall back of one stream of Envoy's.
pub(super) struct Fallback<'a> {
    context: &'a Context,
    /// Not before its end.
    due: Pin<Box<Sleep>>,
    /// True once Envoy needs no snapshot, or there is none.
    is_over: bool,
    /// The node of the Envoy before, where the snapshot has all that it had.
    former: Option<Bytes>,
    /// True while it began before istiod has had its time.
    is_early: bool,
}

impl<'a> Fallback<'a> {
    pub(super) fn new(context: &'a Context) -> Self {
        Self {
            context,
            due: Box::pin(sleep(ISTIOD_TIMEOUT)),
            is_over: false,
            former: context.kept_for.send_replace(None),
            is_early: false,
        }
    }

    /// True while Envoy may need it: an Envoy that has a configuration keeps that, which is newer. Without a valid
    /// certificate nobody in the mesh would speak to the VM.
    pub(super) fn fits(&self, conversation: &Conversation<'_>) -> bool {
        let now = self.context.options.clock.now();
        let credentials = self.context.inputs.credentials.borrow();
        !self.is_over
            && conversation.protocol == XdsProtocol::Delta
            && conversation.session.node().is_some()
            && !conversation.session.is_resumed()
            && credentials.as_ref().is_some_and(|held| held.valid_at(now))
    }

    /// True until Envoy has said who it is: no istiod is asked before it is known what to tell it.
    pub(super) fn may_resume(&self) -> bool {
        self.former.is_some()
    }

    /// True, once, for an Envoy that is as the one before, and has nothing yet.
    pub(super) fn resumes(&mut self, conversation: &Conversation<'_>) -> bool {
        let has_asked = |_: &mut Bytes| !conversation.session.opening().is_empty();
        let Some(former) = self.former.take_if(has_asked) else {
            return false;
        };
        let is_alike = |now| node::are_alike(&former, now);
        self.is_early = conversation.session.node().is_some_and(is_alike) && self.fits(conversation);
        self.is_early
    }

    /// True while the snapshot serves and istiod may answer yet.
    pub(super) fn is_early(&self) -> bool {
        self.is_early
    }

    /// istiod has had its time, and serves or doesn't.
    pub(super) fn istiod_is_late(&mut self, istiod_serves: bool) {
        self.is_early = false;
        if !istiod_serves {
            self.answered();
        }
    }

    /// Completes when istiod has had its time. Loses nothing when it is dropped.
    pub(super) async fn due(&mut self) {
        self.due.as_mut().await;
    }

    /// Every control plane has failed: there is none to wait for.
    pub(super) fn hasten(&mut self) {
        self.due.as_mut().reset(Instant::now());
    }

    /// An istiod was lost that served for so long. In a steady stream Envoy was told everything.
    pub(super) fn istiod_lost(&mut self, served: Duration) {
        self.is_over |= served >= STEADY_AFTER;
        self.is_early = false;
        self.due.as_mut().reset(Instant::now() + ISTIOD_TIMEOUT);
    }

    /// The snapshot, which answers all that Envoy asks for and doesn't have; `None` when there is none.
    pub(super) fn begin(&mut self, conversation: &Conversation<'_>) -> Option<Upstream> {
        let file = self.context.snapshot.clone();
        if file.written().is_none() {
            (self.is_over, self.is_early) = (true, false);
            tracing::info!("no istiod answers, and no configuration of an earlier start is kept");
            return None;
        }
        let membership = self.context.inputs.membership.borrow().clone();
        let probe = self.context.inputs.probe.borrow().clone();
        let session = &conversation.session;
        // The names were taken out of it at the start of the agent.
        Some(Upstream::open(
            conversation.protocol,
            false,
            session,
            &probe,
            |requests| Box::new(SnapshotPeer::new(file, membership, requests)),
        ))
    }

    /// The snapshot answered, which is told once istiod has had its time.
    pub(super) fn answered(&self) {
        if self.is_early {
            return;
        }
        if let Some(written) = self.context.snapshot.written() {
            self.context.report.serves_snapshot(written);
        }
    }

    /// The snapshot can't be used.
    pub(super) fn failed(&mut self, error: &Error) {
        self.is_over = true;
        self.is_early = false;
        self.context.report.snapshot_problem(format!("{error:#}"));
    }
}
