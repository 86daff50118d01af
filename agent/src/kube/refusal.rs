//! An API server's refusal as data.

use std::time::SystemTime;

use http::StatusCode;

use super::access::{Credential, Method};
use super::bearer::Bearer;
use super::objects::Status;
use super::resource::{Resource, Verb};
use crate::bounds::bounded_words;
use crate::web::{Answer, wrong_clock};

/// Longest part of the server's words that is repeated, in characters.
const MAX_WORDS: usize = 400;
/// net/http's NotFound.
const NOT_SERVED: &str = "404 page not found";

/// An answer that is no success: what was asked, with what, and what the server said.
#[derive(Debug, thiserror::Error)]
#[error("failed to {verb} {resource} at {server}: {status}")]
pub(crate) struct Refusal {
    /// The server's URL.
    pub(crate) server: String,
    pub(crate) verb: Verb,
    pub(crate) resource: Resource,
    pub(crate) status: StatusCode,
    /// Absent when the answer is none of Kubernetes.
    pub(crate) said: Option<ApiStatus>,
    /// True for the words of Go's own server, which an API server has for a path that it doesn't serve.
    pub(crate) is_plain: bool,
    /// The credential that the VM proved itself with, for people.
    pub(crate) credential: String,
    pub(crate) method: Method,
    /// The token that was sent, where the credential is one.
    pub(crate) bearer: Option<Bearer>,
    /// The error of this VM's clock by the server's, if there is one, for people.
    pub(crate) clock: Option<String>,
    /// When the answer came, by this VM's clock.
    pub(crate) at: SystemTime,
}

/// The server's own account.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ApiStatus {
    /// One line, of bounded length.
    pub(crate) words: String,
    /// True when the account names an object: its kind is known there.
    pub(crate) names_an_object: bool,
}

impl Refusal {
    /// The refusal that `answer` is; it came `at` that time.
    pub(crate) fn new(
        server: &str,
        (verb, resource): (Verb, &Resource),
        (credential, bearer): (&Credential, Option<&Bearer>),
        answer: &Answer,
        at: SystemTime,
    ) -> Self {
        let status: Option<Status> = serde_json::from_str(&answer.text).ok();
        Self {
            server: server.to_owned(),
            verb,
            resource: resource.clone(),
            status: answer.status,
            is_plain: answer.text.trim_end() == NOT_SERVED,
            said: status.map(|status| ApiStatus {
                words: bounded_words(&status.message, MAX_WORDS),
                names_an_object: status.details.is_some_and(|details| !details.name.is_empty()),
            }),
            credential: credential.name(),
            method: credential.method(),
            bearer: bearer.cloned(),
            clock: wrong_clock(&answer.headers, at),
            at,
        }
    }
}
