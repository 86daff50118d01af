//! One stream: which secrets it asked for, and which of them have changed since they were sent.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource};
use istio_api::rpc::{Any, Status as Refusal};
use istio_api::sds::SECRET;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Status, Streaming};

use super::secret::{Encoded, Source};

/// How often files are looked at again.
const FILES: Duration = Duration::from_secs(10);
/// Most secrets of one stream, and longest name: Envoy asks for one or two.
const MAX_NAMES: usize = 1000;
const MAX_NAME: usize = 4096;

/// Which secrets a request asks for.
enum Names {
    /// These.
    All(Vec<String>),
    /// Those of before, and some more, and some less.
    Delta { more: Vec<String>, less: Vec<String> },
}

/// A request of either form.
pub(super) trait Question: Send + 'static {
    fn read(self) -> Read;
}

/// What matters of a request.
pub(super) struct Read {
    names: Names,
    refusal: Option<Refusal>,
}

/// A response of either form.
pub(super) trait Answer: Send + 'static {
    fn write(secrets: Vec<(String, Encoded)>, version: String) -> Self;
}

impl Question for DiscoveryRequest {
    fn read(self) -> Read {
        Read {
            names: Names::All(self.resource_names),
            refusal: self.error_detail,
        }
    }
}

impl Question for DeltaDiscoveryRequest {
    fn read(self) -> Read {
        Read {
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

impl Answer for DiscoveryResponse {
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

impl Answer for DeltaDiscoveryResponse {
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

/// Answers one stream until Envoy ends it.
pub(super) async fn converse<Q: Question, A: Answer>(
    mut questions: Streaming<Q>,
    answers: mpsc::Sender<Result<A, Status>>,
    mut source: Source,
) {
    let mut subscription = Subscription::default();
    let mut files = interval(FILES);
    files.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for version in 1_u64.. {
        let changed = loop {
            tokio::select! {
                question = questions.message() => match question {
                    Ok(Some(question)) => subscription.read(question.read()),
                    Ok(None) | Err(_) => return,
                },
                () = source.changed() => {}
                _ = files.tick(), if subscription.has_files() => {}
                () = answers.closed() => return,
            }
            let changed = subscription.changed(source.secrets(subscription.names()).await);
            if !changed.is_empty() {
                break changed;
            }
        };
        tracing::debug!(version, secrets = ?changed.iter().map(|(name, _)| name).collect::<Vec<_>>(), "sent secrets");
        if answers.send(Ok(A::write(changed, version.to_string()))).await.is_err() {
            return;
        }
    }
}

/// The secrets of one stream. No nonces: what was sent isn't sent again until it changes, whether Envoy took it,
/// refused it or hasn't answered yet.
#[derive(Default)]
struct Subscription(BTreeMap<String, Entry>);

#[derive(Default)]
struct Entry {
    sent: Option<Encoded>,
    /// The last complaint, so that it is logged once.
    complaint: Option<String>,
}

impl Subscription {
    fn read(&mut self, question: Read) {
        if let Some(refusal) = question.refusal {
            let names: Vec<&String> = self.0.keys().collect();
            tracing::warn!(secrets = ?names, "Envoy refused a secret and keeps its last one: {:.400}", refusal.message);
        }
        match question.names {
            Names::All(names) => {
                self.0.retain(|name, _| names.contains(name));
                self.add(names, |entries, name| {
                    entries.entry(name).or_default();
                });
            }
            Names::Delta { more, less } => {
                less.iter().for_each(|name| drop(self.0.remove(name)));
                // Asked for again, it is sent again.
                self.add(more, |entries, name| {
                    entries.insert(name, Entry::default());
                });
            }
        }
    }

    fn add(&mut self, names: Vec<String>, add: impl Fn(&mut BTreeMap<String, Entry>, String)) {
        for name in names {
            if name.len() > MAX_NAME || self.0.len() >= MAX_NAMES && !self.0.contains_key(&name) {
                return tracing::warn!(
                    "Envoy asks for more than {MAX_NAMES} secrets, or for a name of more than {MAX_NAME} bytes"
                );
            }
            add(&mut self.0, name);
        }
    }

    fn names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    fn has_files(&self) -> bool {
        self.0.keys().any(|name| name.starts_with("file-"))
    }

    /// What is to be sent, and is taken as sent.
    fn changed(&mut self, found: Vec<(String, Result<Option<Encoded>>)>) -> Vec<(String, Encoded)> {
        let mut changed = Vec::new();
        for (name, found) in found {
            let Some(entry) = self.0.get_mut(&name) else { continue };
            match found {
                Ok(Some(secret)) => {
                    entry.complaint = None;
                    if entry.sent.as_ref() != Some(&secret) {
                        entry.sent = Some(secret.clone());
                        changed.push((name, secret));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    let complaint = format!("{error:#}");
                    if entry.complaint.as_ref() != Some(&complaint) {
                        tracing::warn!(secret = name, "Envoy asks for a secret that can't be had: {complaint}");
                        entry.complaint = Some(complaint);
                    }
                }
            }
        }
        changed
    }
}
