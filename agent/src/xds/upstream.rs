//! A peer in the terms of Envoy's stream: it hears all that Envoy asks, as if it had always been the one.

use std::pin::Pin;
use std::time::Duration;

use istio_api::frame::{AnyRequest, Frame, XdsProtocol};
use tokio::time::Instant;

use super::agent_requests::AgentRequests;
use super::peer::{Disconnect, Peer};
use super::sent::SentResponses;
use super::session::Session;
use crate::facts::{HostState, Membership, ProbeState};

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

    pub(super) fn is_at(&self, selected: &str, membership: &Membership, host: &HostState) -> bool {
        self.peer.is_at(selected, membership, host)
    }

    pub(super) fn is_control_plane(&self) -> bool {
        self.peer.is_control_plane()
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use istio_api::rpc;

    use super::*;

    /// A peer that is no istiod: answers each request with the request itself.
    struct Echo(VecDeque<Frame>);

    impl Peer for Echo {
        fn address(&self) -> &'static str {
            "echo"
        }

        fn is_control_plane(&self) -> bool {
            false
        }

        fn is_at(&self, _: &str, _: &Membership, _: &HostState) -> bool {
            false
        }

        fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async {})
        }

        fn send(&mut self, request: Frame) {
            self.0.push_back(request);
        }

        fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Frame, Disconnect>> + Send + '_>> {
            let echoed = self.0.pop_front();
            Box::pin(async { Ok(echoed.expect("nothing was asked")) })
        }
    }

    fn request(nonce: &str, names: &[&str]) -> AnyRequest {
        AnyRequest {
            type_url: "cds".to_owned(),
            names: names.iter().map(|&name| name.to_owned()).collect(),
            response_nonce: nonce.to_owned(),
            error_detail: (!nonce.is_empty()).then(rpc::Status::default),
            ..AnyRequest::default()
        }
    }

    #[tokio::test]
    async fn upstream_of_any_peer_hears_who_asks_and_no_answer_to_another_peer() {
        let protocol = XdsProtocol::Delta;
        let node = Some(bytes::Bytes::from_static(b"vm"));
        let mut session = Session::new(protocol);
        session.note(&AnyRequest {
            node: node.clone(),
            ..request("", &[])
        });
        let probe = ProbeState::NotConfigured;
        let mut upstream = Upstream::open(protocol, false, &session, &probe, |opening| {
            Box::new(Echo(opening.into()))
        });
        upstream.sent.push("cds".to_owned(), "its own".to_owned(), None, None);
        for (nonce, names) in [
            ("its own", &[][..]),
            ("another's", &[]),
            ("another's", &["x"]),
            ("", &["y"]),
        ] {
            let request = request(nonce, names);
            let is_new = session.note(&request);
            let frame = Frame::of_request(protocol, request.clone());
            upstream.forward(&frame, &request, is_new, &session, &probe);
        }
        let opening = upstream.next().await.unwrap().request(protocol).unwrap();
        assert_eq!(opening.node, node);
        for expected in [request("its own", &[]), request("", &["x"]), request("", &["y"])] {
            let heard = upstream.next().await.unwrap().request(protocol).unwrap();
            assert_eq!(heard, expected);
        }
        let membership = crate::control_plane::fixtures::membership();
        assert!(!upstream.is_at("istiod:15012", &membership, &HostState::default()));
    }
}
