//! A peer in the terms of Envoy's stream: it hears all that Envoy asks, as if it had always been the one.

use std::pin::Pin;
use std::time::Duration;

use istio_api::frame::{AnyRequest, Frame, XdsProtocol};
use tokio::time::Instant;

use super::agent_requests::AgentRequests;
use super::peer::{Disconnect, Peer};
use super::sent::SentResponses;
use super::session::Session;
use crate::facts::{Membership, ProbeState};

/// A peer, and what has passed between it and Envoy.
pub(super) struct Upstream {
    peer: Box<dyn Peer>,
    protocol: XdsProtocol,
    /// Responses that went to Envoy.
    pub(super) sent: SentResponses,
    agent: AgentRequests,
    /// True once a request with the node in it has gone out.
    has_node: bool,
    /// The first response, until Envoy has room for it.
    first: Option<Frame>,
    /// Time at which it began to serve Envoy.
    serving_since: Option<Instant>,
}

impl Upstream {
    /// Opens the stream of a peer with all that the session knows: `open` is given the first requests.
    pub(super) fn open(
        protocol: XdsProtocol,
        wants_names: bool,
        session: &Session,
        probe: &ProbeState,
        open: impl FnOnce(Vec<Frame>) -> Box<dyn Peer>,
    ) -> Self {
        let mut agent = AgentRequests::new(protocol, wants_names);
        let opening = session.opening();
        let mut requests = Vec::with_capacity(opening.len() + 2);
        let has_node = !opening.is_empty();
        for (type_url, frame) in opening {
            requests.push(frame);
            requests.extend(agent.after(&type_url, probe));
        }
        Self {
            peer: open(requests),
            protocol,
            sent: SentResponses::default(),
            agent,
            has_node,
            first: None,
            serving_since: None,
        }
    }

    pub(super) fn address(&self) -> &str {
        self.peer.address()
    }

    pub(super) fn is_at(&self, selected: &str, membership: &Membership) -> bool {
        self.peer.is_at(selected, membership)
    }

    pub(super) fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.peer.room()
    }

    /// Begins to serve Envoy, with this response as the next one.
    pub(super) fn serve(&mut self, first: Frame) {
        self.serving_since = Some(Instant::now());
        self.first = Some(first);
    }

    /// Time for which it has served Envoy.
    pub(super) fn served_for(&self) -> Duration {
        self.serving_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// The next response. Loses nothing when it is dropped.
    pub(super) async fn next(&mut self) -> Result<Frame, Disconnect> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.peer.next().await,
        }
    }

    /// Passes on a request of Envoy's. An answer to another peer's response is none of this one's business, unless it
    /// asks for something beside (`is_new`).
    pub(super) fn forward(
        &mut self,
        frame: &Frame,
        request: &AnyRequest,
        is_new: bool,
        session: &Session,
        probe: &ProbeState,
    ) {
        let is_its_own = request.response_nonce.is_empty() || self.sent.is_answered_by(request);
        let knows_who_asks = self.has_node || request.node.is_some();
        if is_its_own && knows_who_asks {
            self.peer.send(frame.clone());
        } else if is_its_own || is_new {
            let mut own = request.clone();
            if !knows_who_asks {
                own.node = session.node().cloned();
            }
            if !is_its_own {
                own.response_nonce.clear();
                own.error_detail = None;
            }
            self.peer.send(Frame::of_request(self.protocol, own));
        } else {
            return;
        }
        self.has_node = true;
        for frame in self.agent.after(&request.type_url, probe) {
            self.peer.send(frame);
        }
    }

    /// Says whether the application is healthy, if that is news.
    pub(super) fn send_health(&mut self, probe: &ProbeState) {
        if let Some(frame) = self.agent.health(probe) {
            self.peer.send(frame);
        }
    }

    /// Accepts a name table, or refuses it and says why.
    pub(super) fn answer_names(&mut self, version: String, nonce: &str, refused: Option<String>) {
        let answer = self.agent.answer_names(version, nonce, refused);
        self.peer.send(answer);
    }
}
