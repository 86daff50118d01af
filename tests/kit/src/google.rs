//! The metadata server, with Google's paths, headers and error shapes.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::json;
use tokio::sync::watch;

use crate::web::Server;

type Values = BTreeMap<String, (u64, String)>;

const FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");

/// The server's next answers; changed by tests.
#[derive(Debug)]
pub struct Metadata {
    project: &'static str,
    /// The one token of the instance's service account; absent: `token-1`, `token-2`, ….
    token: Option<String>,
    instance_attributes: Mutex<BTreeMap<String, String>>,
    project_attributes: Mutex<BTreeMap<String, String>>,
    /// Values by path, with their etags; a question that names the etag waits for another one.
    values: watch::Sender<Values>,
    /// Questions for values, by path.
    questions: watch::Sender<BTreeMap<String, usize>>,
    /// True when no service account is attached to the instance.
    pub no_service_account: AtomicBool,
    /// Tokens handed out.
    pub tokens: AtomicUsize,
}

impl Metadata {
    /// An instance of this project, without attributes.
    pub fn new(project: &'static str, token: Option<String>) -> Arc<Self> {
        Arc::new(Self {
            project,
            token,
            instance_attributes: Mutex::default(),
            project_attributes: Mutex::default(),
            values: watch::Sender::default(),
            questions: watch::Sender::default(),
            no_service_account: AtomicBool::default(),
            tokens: AtomicUsize::default(),
        })
    }

    /// Serves it.
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/computeMetadata/v1/{*path}", get(answer))
            .with_state(Arc::clone(self))
    }

    /// Sets an attribute of the instance.
    pub fn set_instance(&self, key: &str, value: &str) {
        let mut attributes = self.instance_attributes.lock().unwrap();
        attributes.insert(key.to_owned(), value.to_owned());
    }

    /// Sets an attribute of the project.
    pub fn set_project(&self, key: &str, value: &str) {
        let mut attributes = self.project_attributes.lock().unwrap();
        attributes.insert(key.to_owned(), value.to_owned());
    }

    /// Sets a value that the instance waits for, by its path.
    pub fn set_value(&self, path: &str, value: &str) {
        self.values.send_modify(|values| {
            let (etag, known) = values.entry(path.to_owned()).or_default();
            *etag += 1;
            value.clone_into(known);
        });
    }

    /// Completes once the value has been asked for so many times.
    pub async fn asked(&self, path: &str, times: usize) {
        let mut questions = self.questions.subscribe();
        let is_asked = |questions: &BTreeMap<String, usize>| questions.get(path).is_some_and(|count| *count >= times);
        questions.wait_for(is_asked).await.unwrap();
    }

    fn text(&self, path: &str) -> Option<String> {
        let has_account = !self.no_service_account.load(Ordering::Relaxed);
        match path {
            "instance/attributes/" => Some(json!(*self.instance_attributes.lock().unwrap()).to_string()),
            "project/attributes/" => Some(json!(*self.project_attributes.lock().unwrap()).to_string()),
            "project/project-id" => Some(self.project.to_owned()),
            "instance/zone" => Some("projects/123456789/zones/europe-west1-b".to_owned()),
            "instance/service-accounts/default/token" if has_account => {
                let number = self.tokens.fetch_add(1, Ordering::Relaxed) + 1;
                let token = self.token.clone().unwrap_or_else(|| format!("token-{number}"));
                Some(json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}).to_string())
            }
            _ => None,
        }
    }
}

/// A running server of 127.0.0.1, with the project `shop`.
#[derive(Debug)]
pub struct MetadataServer {
    /// Where it is.
    pub server: Server,
    metadata: Arc<Metadata>,
}

impl MetadataServer {
    /// Starts one.
    pub async fn start() -> Self {
        let metadata = Metadata::new("shop", None);
        let server = Server::plain(metadata.router()).await;
        Self { server, metadata }
    }
}

impl Deref for MetadataServer {
    type Target = Metadata;

    fn deref(&self) -> &Metadata {
        &self.metadata
    }
}

async fn answer(
    State(metadata): State<Arc<Metadata>>,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if headers.get(FLAVOR.0).is_none_or(|value| value != FLAVOR.1) {
        return (
            StatusCode::FORBIDDEN,
            [FLAVOR],
            "Missing Metadata-Flavor:Google header.",
        )
            .into_response();
    }
    let absent = |text: &'static str| (StatusCode::NOT_FOUND, [FLAVOR], text).into_response();
    if path == "instance/preempted" || path == "instance/maintenance-event" {
        return match value(&metadata, &path, query.get("last_etag")).await {
            Some((etag, text)) => ([FLAVOR, ("etag", &*etag.to_string())], text).into_response(),
            None => absent(""),
        };
    }
    match metadata.text(&path) {
        Some(text) => ([FLAVOR], text).into_response(),
        None => absent("<!DOCTYPE html>"),
    }
}

/// A value: once its etag is another one than `last`, where the question names one.
async fn value(metadata: &Metadata, path: &str, last: Option<&String>) -> Option<(u64, String)> {
    metadata
        .questions
        .send_modify(|questions| *questions.entry(path.to_owned()).or_default() += 1);
    let mut values = metadata.values.subscribe();
    if let Some(last) = last {
        let is_another = |(etag, _): &(u64, String)| *last != etag.to_string();
        let changed = |values: &Values| values.get(path).is_some_and(is_another);
        values.wait_for(changed).await.unwrap();
    }
    let known = values.borrow();
    known.get(path).cloned()
}
