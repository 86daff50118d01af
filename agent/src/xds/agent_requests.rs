//! Requests of the agent's own, on Envoy's stream or its own: for istiod's name table, and the application's health.

use bytes::Bytes;
use istio_api::ads::HEALTH_INFORMATION;
use istio_api::frame::{AnyRequest, Frame, XdsProtocol};
use istio_api::nds::NAME_TABLE;
use istio_api::rpc;
use tonic::Code;

use crate::facts::ProbeState;

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// The agent's requests to one peer.
#[derive(Debug)]
pub(super) struct AgentRequests {
    protocol: XdsProtocol,
    /// True when the name table is asked for.
    wants_names: bool,
    /// True once the peer knows who asks, so that the agent's requests may go out.
    begun: bool,
    /// Health of the application, as the peer was told last.
    healthy: Option<bool>,
    /// Version of the name table that was accepted last; a NACK in state-of-the-world form names it.
    names_version: String,
}

impl AgentRequests {
    pub(super) fn new(protocol: XdsProtocol, wants_names: bool) -> Self {
        Self {
            protocol,
            wants_names,
            begun: false,
            healthy: None,
            names_version: String::new(),
        }
    }

    /// Requests that follow Envoy's for `type_url`: all of them after its first one for listeners. istiod knows who asks
    /// by the node in the first request, so nothing of the agent's may come before (istio/pkg/istio-agent/xds_proxy.go).
    pub(super) fn after(&mut self, type_url: &str, probe: &ProbeState) -> Vec<Frame> {
        if type_url != LISTENER || self.begun {
            return Vec::new();
        }
        self.begun = true;
        // istiod has one name table per proxy and wants no name.
        let names = self.wants_names.then(|| self.request(NAME_TABLE, "", "", None));
        names.into_iter().chain(self.health(probe)).collect()
    }

    /// The first requests of a stream without an Envoy, whose proxy is the one of this node.
    pub(super) fn introduce(&mut self, node: Bytes, probe: &ProbeState) -> Vec<Frame> {
        self.begun = true;
        let introduction = AnyRequest {
            node: Some(node),
            type_url: NAME_TABLE.to_owned(),
            ..AnyRequest::default()
        };
        let introduction = Frame::of_request(self.protocol, introduction);
        [introduction].into_iter().chain(self.health(probe)).collect()
    }

    /// Says whether the application is healthy when that differs from what the peer was told; another reason for
    /// being unhealthy is not worth a write to its WorkloadEntry.
    pub(super) fn health(&mut self, probe: &ProbeState) -> Option<Frame> {
        let (healthy, failure) = match probe {
            ProbeState::Healthy => (true, None),
            ProbeState::Unhealthy { reason } => (false, Some(reason.clone())),
            ProbeState::NotConfigured | ProbeState::Unknown => return None,
        };
        let is_news = self.begun && self.healthy.replace(healthy) != Some(healthy);
        is_news.then(|| self.request(HEALTH_INFORMATION, "", "", failure))
    }

    /// Accepts the name table of this nonce, or refuses it and says why.
    pub(super) fn answer_names(&mut self, version: String, nonce: &str, refused: Option<String>) -> Frame {
        if refused.is_none() {
            self.names_version = version;
        }
        self.request(NAME_TABLE, &self.names_version, nonce, refused)
    }

    fn request(&self, type_url: &str, version: &str, nonce: &str, error: Option<String>) -> Frame {
        let error_detail = error.map(|message| rpc::Status {
            code: Code::Internal.into(),
            message,
            details: Vec::new(),
        });
        let request = AnyRequest {
            version: version.to_owned(),
            type_url: type_url.to_owned(),
            response_nonce: nonce.to_owned(),
            error_detail,
            ..AnyRequest::default()
        };
        Frame::of_request(self.protocol, request)
    }
}
