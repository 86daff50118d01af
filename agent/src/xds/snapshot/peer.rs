//! The snapshot as a [`Peer`]: answers what Envoy asks for and doesn't have, out of the file.
//!
//! The file is read anew for each answer, so that no configuration is in memory while istiod is away.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use futures_util::future::BoxFuture;
use istio_api::ads::HEALTH_INFORMATION;
use istio_api::frame::{AnyRequest, Frame, XdsProtocol};
use istio_api::nds::NAME_TABLE;

use super::document::{Resources, Snapshot};
use super::{SnapshotFile, may_keep};
use crate::facts::{HostState, Membership};
use crate::host::blocking;
use crate::xds::peer::{Disconnect, Peer};
use crate::xds::session::WILDCARD;

/// The snapshot, which serves Envoy.
pub(in crate::xds) struct SnapshotPeer {
    file: SnapshotFile,
    membership: Arc<Membership>,
    questions: VecDeque<Question>,
    /// Types that Envoy has asked for.
    asked: HashSet<String>,
    /// Number of the answers so far.
    answers: usize,
    answering: Option<BoxFuture<'static, Result<Frame>>>,
}

/// Resources that Envoy asks for in one request.
struct Question {
    type_url: String,
    wildcard: bool,
    names: HashSet<String>,
    /// Resources that Envoy has by another peer, with its version: newer than what is kept, or the same.
    held: HashMap<String, String>,
}

impl SnapshotPeer {
    /// Begins with these requests.
    pub(in crate::xds) fn new(file: SnapshotFile, membership: Arc<Membership>, requests: Vec<Frame>) -> Self {
        let mut peer = Self {
            file,
            membership,
            questions: VecDeque::new(),
            asked: HashSet::new(),
            answers: 0,
            answering: None,
        };
        for request in requests {
            peer.send(request);
        }
        peer
    }

    /// A request is a question when it asks for something, and no mere ACK or NACK.
    fn ask(&mut self, request: AnyRequest) {
        let is_the_agents = [HEALTH_INFORMATION, NAME_TABLE].contains(&&*request.type_url);
        if is_the_agents || !may_keep(&request.type_url) {
            return;
        }
        let first = self.asked.insert(request.type_url.clone());
        if !first && request.names.is_empty() {
            return;
        }
        self.questions.push_back(Question {
            wildcard: request.names.is_empty() || request.names.iter().any(|name| name == WILDCARD),
            type_url: request.type_url,
            names: request.names.into_iter().collect(),
            held: request.versions,
        });
    }

    fn answer(&mut self, question: Question) -> BoxFuture<'static, Result<Frame>> {
        self.answers += 1;
        let nonce = format!("snapshot-{}", self.answers);
        let (file, membership) = (self.file.clone(), Arc::clone(&self.membership));
        Box::pin(blocking(move || {
            let snapshot = file.load(&membership)?.context("the snapshot is gone")?;
            Ok(question.answer(&snapshot, &nonce))
        }))
    }
}

impl Question {
    fn answer(self, snapshot: &Snapshot, nonce: &str) -> Frame {
        let none = Resources::new();
        let kept = snapshot.0.get(&self.type_url).unwrap_or(&none);
        let is_wanted = |name: &String| self.wildcard || self.names.contains(name);
        let resources = kept
            .iter()
            .filter(|(name, _)| is_wanted(name) && !self.held.contains_key(*name));
        // Envoy waits for what it asks by name until it is there or isn't.
        let missing = self.names.iter().filter(|name| {
            let is_known = kept.contains_key(*name) || self.held.contains_key(*name);
            *name != WILDCARD && !is_known
        });
        Frame::of_resources(
            &self.type_url,
            nonce,
            resources.map(|(_, resource)| resource.clone()).collect(),
            missing.cloned().collect(),
        )
    }
}

impl Peer for SnapshotPeer {
    fn address(&self) -> &'static str {
        "the snapshot"
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
        // The conversation has read it before.
        if let Ok(request) = request.request(XdsProtocol::Delta) {
            self.ask(request);
        }
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Frame, Disconnect>> + Send + '_>> {
        Box::pin(async {
            if self.answering.is_none() {
                let Some(question) = self.questions.pop_front() else {
                    return std::future::pending().await;
                };
                self.answering = Some(self.answer(question));
            }
            let Some(answering) = &mut self.answering else {
                return std::future::pending().await;
            };
            let answer = answering.await;
            self.answering = None;
            answer.map_err(|error| Disconnect { error, silent: None })
        })
    }
}

#[cfg(test)]
mod tests;
