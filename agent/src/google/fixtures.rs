//! A metadata server with Google's paths, headers and error shapes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kit::web::Server;
use serde_json::json;
use tokio::sync::watch;

use super::Metadata;

/// The server's next answers; changed by tests.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) instance: Mutex<BTreeMap<String, String>>,
    pub(crate) project: Mutex<BTreeMap<String, String>>,
    /// Values by path, with their etags; a question that names the etag waits for another one.
    pub(crate) values: watch::Sender<BTreeMap<String, (u64, String)>>,
    /// Questions for values, by path.
    pub(crate) questions: watch::Sender<BTreeMap<String, usize>>,
    /// True when no service account is attached to the instance.
    pub(crate) no_service_account: AtomicBool,
    /// Tokens handed out; the newest is `token-N`.
    pub(crate) tokens: AtomicUsize,
}

/// The running server.
#[derive(Debug)]
pub(crate) struct MetadataServer {
    pub(crate) said: Arc<Said>,
    pub(crate) server: Server,
}

impl MetadataServer {
    pub(crate) async fn start() -> Self {
        let said = Arc::new(Said::default());
        let router = Router::new()
            .route("/computeMetadata/v1/{*path}", get(answer))
            .with_state(Arc::clone(&said));
        let server = Server::plain(router).await;
        Self { said, server }
    }

    pub(crate) fn client(&self) -> Metadata {
        Metadata::at(&self.server.url).unwrap()
    }

    pub(crate) fn set_instance(&self, key: &str, value: &str) {
        let mut attributes = self.said.instance.lock().unwrap();
        attributes.insert(key.to_owned(), value.to_owned());
    }

    pub(crate) fn set_value(&self, path: &str, value: &str) {
        self.said.values.send_modify(|values| {
            let (etag, known) = values.entry(path.to_owned()).or_default();
            *etag += 1;
            value.clone_into(known);
        });
    }

    /// Completes once the value has been asked for so many times.
    pub(crate) async fn asked(&self, path: &str, times: usize) {
        let mut questions = self.said.questions.subscribe();
        let is_asked = |questions: &BTreeMap<String, usize>| questions.get(path).is_some_and(|count| *count >= times);
        questions.wait_for(is_asked).await.unwrap();
    }

    pub(crate) fn set_project(&self, key: &str, value: &str) {
        let mut attributes = self.said.project.lock().unwrap();
        attributes.insert(key.to_owned(), value.to_owned());
    }
}

async fn answer(
    State(said): State<Arc<Said>>,
    Path(path): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    const FLAVOR: [(&str, &str); 1] = [("Metadata-Flavor", "Google")];
    if headers.get("metadata-flavor").is_none_or(|value| value != "Google") {
        return (StatusCode::FORBIDDEN, FLAVOR, "Missing Metadata-Flavor:Google header.").into_response();
    }
    if path == "instance/preempted" || path == "instance/maintenance-event" {
        said.questions
            .send_modify(|questions| *questions.entry(path.clone()).or_default() += 1);
        let mut values = said.values.subscribe();
        let is_another = |etag: u64| query.get("last_etag").is_none_or(|last| *last != etag.to_string());
        if query.contains_key("last_etag") {
            let changed =
                |values: &BTreeMap<String, (u64, String)>| values.get(&path).is_some_and(|(etag, _)| is_another(*etag));
            values.wait_for(changed).await.unwrap();
        }
        let value = values.borrow().get(&path).cloned();
        return match value {
            Some((etag, text)) => ([FLAVOR[0], ("etag", &*etag.to_string())], text).into_response(),
            None => (StatusCode::NOT_FOUND, FLAVOR, "").into_response(),
        };
    }
    let has_account = !said.no_service_account.load(Ordering::Relaxed);
    let text = match (path.as_str(), has_account) {
        ("instance/attributes/", _) => Some(json!(*said.instance.lock().unwrap()).to_string()),
        ("project/attributes/", _) => Some(json!(*said.project.lock().unwrap()).to_string()),
        ("project/project-id", _) => Some("shop".to_owned()),
        ("instance/zone", _) => Some("projects/123456789/zones/europe-west1-b".to_owned()),
        ("instance/service-accounts/default/token", true) => {
            let number = said.tokens.fetch_add(1, Ordering::Relaxed) + 1;
            let token = format!("token-{number}");
            Some(json!({"access_token": token, "expires_in": 3599, "token_type": "Bearer"}).to_string())
        }
        _ => None,
    };
    match text {
        Some(text) => (FLAVOR, text).into_response(),
        None => (StatusCode::NOT_FOUND, FLAVOR, "<!DOCTYPE html>").into_response(),
    }
}
