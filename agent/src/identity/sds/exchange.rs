//! The exchange on one stream: which secrets it asked for, and which of them have changed since they were sent.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource};
use istio_api::rpc::{Any, Status as Refusal};
use istio_api::sds::SECRET;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{MissedTickBehavior, interval};
use tonic::Streaming;

use super::secret::{Encoded, Source};
use crate::bounds::Refusals;

/// Time after which the files of secrets are looked at again.
const FILE_CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Most secrets of one stream: Envoy asks for one or two.
pub(super) const MAX_NAMES: usize = 16;
/// Longest name of a secret, in bytes; it may hold two paths.
const MAX_NAME: usize = 8 << 10;
/// Length of a response, in bytes, from which on it gets no further secret.
const MAX_RESPONSE: usize = 512 << 10;

/// The secrets that a request asks for.
enum Names {
    /// Only these names.
    All(Vec<String>),
    /// The names of before, `more` added and `less` taken away.
    Delta { more: Vec<String>, less: Vec<String> },
}

/// A request of either protocol.
pub(super) trait SdsRequest: Send + 'static {
    fn read(self) -> SecretRequest;
}

/// The parts of a request that matter.
pub(super) struct SecretRequest {
    names: Names,
    refusal: Option<Refusal>,
}

/// A response of either protocol.
pub(super) trait SdsResponse: Send + 'static {
    fn write(secrets: Vec<(String, Encoded)>, version: String) -> Self;
}

impl SdsRequest for DiscoveryRequest {
    fn read(self) -> SecretRequest {
        SecretRequest {
            names: Names::All(self.resource_names),
            refusal: self.error_detail,
        }
    }
}

impl SdsRequest for DeltaDiscoveryRequest {
    fn read(self) -> SecretRequest {
        SecretRequest {
            names: Names::Delta {
                more: self.resource_names_subscribe,
                less: self.resource_names_unsubscribe,
            },
            refusal: self.error_detail,
        }
    }
}

fn any(value: Encoded) -> Any {
    Any {
        type_url: SECRET.to_owned(),
        value,
    }
}

impl SdsResponse for DiscoveryResponse {
    fn write(secrets: Vec<(String, Encoded)>, version: String) -> Self {
        Self {
            version_info: version.clone(),
            resources: secrets.into_iter().map(|(_, secret)| any(secret)).collect(),
            type_url: SECRET.to_owned(),
            nonce: version,
            control_plane: None,
        }
    }
}

impl SdsResponse for DeltaDiscoveryResponse {
    fn write(secrets: Vec<(String, Encoded)>, version: String) -> Self {
        let resource = |(name, secret)| Resource {
            name,
            version: version.clone(),
            resource: Some(any(secret)),
        };
        Self {
            resources: secrets.into_iter().map(resource).collect(),
            system_version_info: version.clone(),
            type_url: SECRET.to_owned(),
            nonce: version,
            removed_resources: Vec::new(),
        }
    }
}

/// Serves one stream until Envoy ends it.
pub(super) async fn serve_stream<Q: SdsRequest, A: SdsResponse>(
    mut requests: Streaming<Q>,
    responses: mpsc::Sender<(A, OwnedSemaphorePermit)>,
    mut source: Source,
    turns: Arc<Semaphore>,
    mut subscription: Subscription,
) {
    let mut files = interval(FILE_CHECK_INTERVAL);
    files.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut version, mut has_more) = (0_u64, false);
    loop {
        // What didn't fit into one response is due with the next.
        if !mem::take(&mut has_more) {
            tokio::select! {
                request = requests.message() => match request {
                    Ok(Some(request)) => subscription.read(request.read()),
                    Ok(None) | Err(_) => return,
                },
                () = source.changed() => {}
                _ = files.tick(), if subscription.has_files() => {}
                () = responses.closed() => return,
            }
        }
        let turn = tokio::select! {
            Ok(turn) = Arc::clone(&turns).acquire_owned() => turn,
            () = responses.closed() => return,
        };
        let changed;
        (changed, has_more) = subscription.changed(&mut source).await;
        if changed.is_empty() {
            continue;
        }
        version += 1;
        tracing::debug!(version, secrets = ?changed.iter().map(|(name, _)| name).collect::<Vec<_>>(), "sent secrets");
        if responses
            .send((A::write(changed, version.to_string()), turn))
            .await
            .is_err()
        {
            return;
        }
    }
}

/// The secrets of one stream. No nonces: what was sent isn't sent again until it changes, whether Envoy took it,
/// refused it or hasn't answered yet.
pub(super) struct Subscription {
    entries: BTreeMap<String, Entry>,
    refusals: Refusals,
}

#[derive(Default)]
struct Entry {
    /// Hash of what was sent: a copy of each secret for each stream would be many.
    sent: Option<[u8; SHA256_OUTPUT_LEN]>,
    /// The last complaint, so that it is logged once.
    complaint: Option<String>,
}

impl Subscription {
    pub(super) fn new(refusals: Refusals) -> Self {
        Self {
            entries: BTreeMap::new(),
            refusals,
        }
    }

    fn read(&mut self, request: SecretRequest) {
        if let Some(refusal) = request.refusal {
            let names: Vec<&String> = self.entries.keys().collect();
            tracing::warn!(secrets = ?names, "Envoy refused a secret and keeps its last one: {:.400}", refusal.message);
        }
        match request.names {
            Names::All(names) => {
                let wanted: BTreeSet<&String> = names.iter().collect();
                self.entries.retain(|name, _| wanted.contains(name));
                self.add(names, |entries, name| {
                    entries.entry(name).or_default();
                });
            }
            Names::Delta { more, less } => {
                less.iter().for_each(|name| drop(self.entries.remove(name)));
                // Asked for again, it is sent again.
                self.add(more, |entries, name| {
                    entries.insert(name, Entry::default());
                });
            }
        }
    }

    fn add(&mut self, names: Vec<String>, add: impl Fn(&mut BTreeMap<String, Entry>, String)) {
        for name in names {
            if name.len() > MAX_NAME || self.entries.len() >= MAX_NAMES && !self.entries.contains_key(&name) {
                return self.refusals.count("SDS names", "");
            }
            add(&mut self.entries, name);
        }
    }

    fn has_files(&self) -> bool {
        self.entries.keys().any(|name| name.starts_with("file-"))
    }

    /// Secrets that have changed since they were sent, as many as one response has room for, and whether there may be more.
    async fn changed(&mut self, source: &mut Source) -> (Vec<(String, Encoded)>, bool) {
        let (mut changed, mut size) = (Vec::new(), 0);
        let credentials = source.credentials();
        let names: Vec<String> = self.entries.keys().cloned().collect();
        for name in names {
            if size >= MAX_RESPONSE {
                return (changed, true);
            }
            let found = source.secret(&name, credentials.clone()).await;
            if let Some(secret) = self.take(&name, found) {
                size += secret.len();
                changed.push((name, secret));
            }
        }
        (changed, false)
    }

    /// A secret that is to be sent, and is taken as sent.
    fn take(&mut self, name: &str, found: Result<Option<Encoded>>) -> Option<Encoded> {
        let entry = self.entries.get_mut(name)?;
        match found {
            Ok(secret) => {
                let secret = secret?;
                entry.complaint = None;
                let hash = digest(&SHA256, &secret).as_ref().try_into().ok();
                (mem::replace(&mut entry.sent, hash) != hash).then_some(secret)
            }
            Err(error) => {
                let complaint = format!("{error:#}");
                if entry.complaint.as_ref() != Some(&complaint) {
                    tracing::warn!(secret = name, "Envoy asks for a secret that can't be had: {complaint}");
                    entry.complaint = Some(complaint);
                }
                None
            }
        }
    }
}
