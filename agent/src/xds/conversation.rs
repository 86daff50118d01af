//! The conversation with Envoy: passes requests and responses on, and notes what they say.

use bytes::Bytes;
use istio_api::frame::{Frame, FrameError, XdsProtocol};
use istio_api::nds::NAME_TABLE;
use tonic::Status;

use super::Context;
use super::acks::{Ack, AckTracker};
use super::node;
use super::own_endpoints::{self, CLUSTER_LOAD_ASSIGNMENT};
use super::reported_health::at_left_address;
use super::session::Session;
use super::snapshot::recorder::Recorder;
use super::unix_sockets;
use super::upstream::Upstream;
use crate::facts::ProbeState;

/// One stream of Envoy's, whoever answers.
pub(super) struct Conversation<'a> {
    context: &'a Context,
    pub(super) protocol: XdsProtocol,
    pub(super) session: Session,
    /// Keeps what Envoy accepts.
    pub(super) recorder: Recorder<'a>,
    /// ACKs and NACKs of the responses of the peer that serves.
    acks: AckTracker,
}

/// A response, once it has been looked at.
pub(super) enum Passed {
    /// Envoy gets it, or the end of its stream.
    ToEnvoy(Result<Frame, Status>),
    /// The agent took it.
    ToAgent,
}

impl<'a> Conversation<'a> {
    pub(super) fn new(context: &'a Context, protocol: XdsProtocol) -> Self {
        Self {
            context,
            protocol,
            session: Session::new(protocol),
            recorder: Recorder::new(context),
            acks: AckTracker::default(),
        }
    }

    /// Another peer serves from now on.
    pub(super) fn peer_changed(&mut self) {
        self.acks = AckTracker::default();
        self.recorder.peer_changed();
    }

    /// Keeps what Envoy has; its stream is over. Gives Envoy's node where istiod has spoken on this stream, and the file has all
    /// that it said.
    pub(super) async fn finish(mut self) -> Option<Bytes> {
        let is_kept = self.recorder.finish(&self.session).await;
        self.session.node().filter(|_| is_kept).cloned()
    }

    /// Health as the peers of this stream are to be told it. An Envoy that was started with another address speaks for a VM
    /// that nobody finds there any more; its successor speaks for the VM.
    pub(super) fn health(&self) -> ProbeState {
        let probe = self.context.inputs.probe.borrow().clone();
        match probe {
            // While the VM has both addresses this Envoy serves until the one for the new address does.
            ProbeState::Healthy if self.has_moved() && !self.has_its_address() => at_left_address(),
            probe => probe,
        }
    }

    /// The node of an Envoy that speaks for an address which the VM has no more.
    pub(super) fn left_node(&self) -> Option<Bytes> {
        self.session.node().filter(|_| self.has_moved()).cloned()
    }

    fn has_its_address(&self) -> bool {
        let told = self.session.node().and_then(node::address);
        told.is_some_and(|told| self.context.inputs.host.borrow().may_have(told))
    }

    fn has_moved(&self) -> bool {
        let told = self.session.node().and_then(node::address);
        let membership = self.context.inputs.membership.borrow();
        told.zip(membership.instance_ips.first())
            .is_some_and(|(told, now)| told != *now)
    }

    /// Begins to write what Envoy has.
    pub(super) fn record(&mut self) {
        self.recorder.write(&self.session);
    }

    /// Passes Envoy's request on to the peer that serves and to the one that is to; fails when it is no request.
    pub(super) fn request(
        &mut self,
        frame: &Frame,
        mut current: Option<&mut Upstream>,
        next: Option<&mut Upstream>,
    ) -> Result<(), Status> {
        let request = frame
            .request(self.protocol)
            .map_err(|error| Status::invalid_argument(format!("no discovery request: {error}")))?;
        // An answer to another peer's response says nothing of this one's.
        if let Some(current) = current.as_mut().filter(|current| current.sent.is_answered_by(&request)) {
            let settled = current.sent.settle(&request);
            match self.acks.read(&request) {
                Some(Ack::Nack(message)) => self.context.report.refused(&request.type_url, message),
                Some(Ack::Ack) => {
                    // From here on Envoy has what was in the response.
                    if let Some(changes) = settled.changes {
                        self.session.accepted(&request.type_url, changes);
                    }
                    if let Some(whole) = settled.whole {
                        self.recorder.accepted(&request.type_url, &whole);
                    }
                    self.context.report.accepted(&request.type_url);
                }
                None => {}
            }
        }
        if let Some(node) = &request.node {
            self.context.note_node(node);
        }
        let is_new = self.session.note(&request);
        if self.session.is_overfull() {
            return Err(self.overfull());
        }
        if is_new && request.type_url == CLUSTER_LOAD_ASSIGNMENT {
            let session = &self.session;
            let is_wanted = |cluster: &str| session.asks_for(CLUSTER_LOAD_ASSIGNMENT, cluster);
            self.context.report.endpoints_wanted(is_wanted);
        }
        let probe = self.health();
        for upstream in current.into_iter().chain(next) {
            upstream.forward(frame, &request, is_new, &self.session, &probe);
        }
        Ok(())
    }

    /// Passes on a response: the name table is the agent's, all else Envoy's. Fails when it is no response.
    ///
    /// istiod sends the types that were asked for and no other, and but for the name table it was Envoy who asked.
    /// So a type that the agent has never heard of goes to Envoy as well: it is Envoy's to accept or refuse.
    pub(super) async fn response(&mut self, frame: Frame, from: &mut Upstream) -> Result<Passed, FrameError> {
        let head = frame.response()?;
        let frame = unix_sockets::guarded(
            self.protocol,
            frame,
            &self.context.options.unix_sockets,
            &self.context.options.refusals,
        )?;
        if from.is_control_plane() {
            self.context.report.pushed();
        }
        let is_to_keep = self.protocol == XdsProtocol::Delta
            && from.is_control_plane()
            && self
                .recorder
                .wants(&head.type_url, from.sent.whole_size() + frame.0.len());
        let whole = is_to_keep.then(|| frame.clone());
        if head.type_url == NAME_TABLE {
            let refused = self.context.take_names(self.protocol, frame).await.err();
            if let (None, Some(whole)) = (&refused, &whole) {
                self.recorder.accepted(&head.type_url, whole);
            }
            from.answer_names(head.version, &head.nonce, refused);
            return Ok(Passed::ToAgent);
        }
        if head.type_url == CLUSTER_LOAD_ASSIGNMENT {
            let addresses = &self.context.inputs.membership.borrow().instance_ips;
            let mut clusters = own_endpoints::read(self.protocol, &frame, addresses)?;
            // Of one that Envoy has unsubscribed from meanwhile no message would come that ends it.
            clusters.retain(|(cluster, _)| self.session.asks_for(CLUSTER_LOAD_ASSIGNMENT, cluster));
            self.context.report.endpoints(clusters);
        }
        let changes = match self.protocol {
            XdsProtocol::Delta => Some(frame.changes()?),
            XdsProtocol::Sotw => None,
        };
        if let Some(changes) = &changes {
            self.session.sent(&head.type_url, changes);
        }
        from.sent.push(head.type_url, head.nonce, changes, whole);
        let is_overfull = from.sent.is_overfull() || self.session.is_overfull();
        Ok(Passed::ToEnvoy(if is_overfull {
            Err(self.overfull())
        } else {
            Ok(frame)
        }))
    }

    /// Ends Envoy's stream: on the next one it says anew what it has.
    fn overfull(&self) -> Status {
        self.context.options.refusals.count("xDS streams of too many names", "");
        Status::resource_exhausted("more resources than any mesh has")
    }
}
