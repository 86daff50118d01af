//! A small API server with TLS, and a workload group that is asked for there.

use std::collections::BTreeMap;
use std::path::Path;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE};
use kit::web::Server;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_stream::StreamExt as _;

use super::*;
use crate::control_plane::fixtures::jwt;
use crate::host::System;

/// The server's answers, and what it was asked.
#[derive(Clone, Debug)]
pub(super) struct Cluster {
    pub(super) answers: Arc<Mutex<BTreeMap<String, (u16, Value)>>>,
    pub(super) calls: Arc<Mutex<Vec<String>>>,
    /// Watches get an event when it turns, and none before.
    pub(super) events: watch::Sender<u64>,
    pub(super) date: Option<&'static str>,
    /// The token that is of no use here.
    refused: Arc<Mutex<Option<String>>>,
}

impl Cluster {
    pub(super) fn new() -> Self {
        let golden = include_str!("../../../../tests/golden/istioctl/reference/objects.json");
        let mut objects: Value = serde_json::from_str(golden).unwrap();
        let token = json!({"status": {"token": jwt(r#"{"aud":["istio-ca"],"exp":9000}"#)}});
        let mut answers = BTreeMap::from([(TOKEN.to_owned(), (201, token))]);
        for (path, key) in [
            (GROUP, "workload_group"),
            (MESH, "mesh"),
            (ROOTS_PATH, "roots"),
            (INGRESS, "ingress"),
        ] {
            objects[key]["metadata"]["resourceVersion"] = json!("7");
            answers.insert(path.to_owned(), (200, objects[key].take()));
        }
        Self {
            answers: Arc::new(Mutex::new(answers)),
            calls: Arc::default(),
            events: watch::Sender::new(0),
            date: None,
            refused: Arc::default(),
        }
    }

    pub(super) fn set(&self, path: &str, status: u16, body: Value) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body));
    }

    pub(super) fn refuse(&self, token: &str) {
        *self.refused.lock().unwrap() = Some(format!("Bearer {token}"));
    }

    pub(super) fn calls(&self) -> Vec<String> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

async fn serve(State(cluster): State<Cluster>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get(AUTHORIZATION);
    let authorization = authorization.map_or("-", |value| value.to_str().unwrap()).to_owned();
    let query = request
        .uri()
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    cluster
        .calls
        .lock()
        .unwrap()
        .push(format!("{} {path}{query} {authorization}", request.method()));
    let is_refused = cluster.refused.lock().unwrap().as_ref() == Some(&authorization);
    let answer = match is_refused {
        true => Some((401, status("Unauthorized", ""))),
        false => cluster.answers.lock().unwrap().get(&path).cloned(),
    };
    let (code, body) = match answer {
        // Its head and no more.
        Some((code, Value::Null)) => (code, Body::empty()),
        Some((code, body)) => (code, Body::from(body.to_string())),
        // A watch: the head at once, and an event when there is one.
        None => {
            let events = cluster.events.subscribe();
            let event = tokio_stream::once(()).then(move |()| {
                let mut events = events.clone();
                async move {
                    events.wait_for(|count| *count > 0).await.unwrap();
                    std::io::Result::Ok(r#"{"type": "MODIFIED", "object": {}}"#)
                }
            });
            (200, Body::from_stream(event))
        }
    };
    let mut response = (StatusCode::from_u16(code).unwrap(), body).into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, "application/json".parse().unwrap());
    if let Some(date) = cluster.date {
        response.headers_mut().insert(DATE, date.parse().unwrap());
    }
    response
}

pub(super) struct Case {
    pub(super) cluster: Cluster,
    _server: Server,
    pub(super) directory: tempfile::TempDir,
    pub(super) config: Config,
    pub(super) kubernetes: Kubernetes,
}

impl Case {
    pub(super) async fn new() -> Self {
        Self::with(Cluster::new(), "", "").await
    }

    /// `keys` of join.kubernetes beside those that are needed, and `tables` after it.
    pub(super) async fn with(cluster: Cluster, keys: &str, tables: &str) -> Self {
        let server = Server::tls(Router::new().fallback(serve).with_state(cluster.clone())).await;
        let directory = tempfile::tempdir().unwrap();
        let host = Host::new(directory.path(), System);
        host.write("/ca.pem".as_ref(), &server.root_pem, 0o600, None).unwrap();
        host.write("/token".as_ref(), "first\n", 0o600, None).unwrap();
        let text = format!(
            "[join.kubernetes]\nserver = {:?}\nca_file = \"/ca.pem\"\ntoken_file = \"/token\"\nnamespace = \"shop\"\n\
             workload_group = \"productcatalog\"\n{keys}\n{tables}",
            server.url
        );
        let config = Config::parse(Path::new("c.toml"), &text).unwrap();
        let crate::config::JoinConfig::Kubernetes(join) = &config.join else {
            panic!("{text}")
        };
        let mut kubernetes = Kubernetes::open(join, &config, &host).unwrap();
        kubernetes.intervals = WatchIntervals {
            watch: Duration::from_secs(600),
            poll: Duration::from_millis(1),
            spread: Duration::ZERO,
        };
        Self {
            cluster,
            _server: server,
            directory,
            config,
            kubernetes,
        }
    }

    pub(super) async fn error(&self) -> String {
        format!("{:#}", self.kubernetes.bundle().await.unwrap_err())
    }

    pub(super) fn token_file(&self, text: &str) {
        let host = Host::new(self.directory.path(), System);
        host.write("/token".as_ref(), text, 0o600, None).unwrap();
    }
}

pub(super) fn status(message: &str, name: &str) -> Value {
    json!({"kind": "Status", "message": message, "details": {"name": name}})
}
