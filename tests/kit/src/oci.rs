//! A registry of images, with one in it: `istio/proxyv2:1`.

use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest as hash};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

use crate::web::Server;

/// Contents of a registry, and the requests to it.
#[derive(Debug, Default)]
pub struct Content {
    /// Manifests and blobs, by digest, and manifests by tag.
    pub things: Vec<(String, Bytes)>,
    /// The user and the password that it wants, in base64; absent: none.
    pub login: Option<String>,
    /// URL of this registry.
    url: String,
    /// Each question: kind and name.
    pub asked: Vec<String>,
}

/// One at a port of 127.0.0.1.
#[derive(Debug)]
pub struct Registry {
    server: Server,
    content: Arc<Mutex<Content>>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(hash(&SHA256, bytes)))
}

impl Content {
    /// An image of these layers, in an index with another machine's.
    pub fn of(layers: &[Vec<u8>]) -> Self {
        let mut content = Self::default();
        content.hold(layers);
        content
    }

    fn hold(&mut self, layers: &[Vec<u8>]) {
        let listed: Vec<String> = layers
            .iter()
            .map(|layer| format!(r#"{{"digest":"{}","size":{}}}"#, digest(layer), layer.len()))
            .collect();
        let image = format!(r#"{{"layers":[{}]}}"#, listed.join(","));
        let entries = ["amd64", "arm64"].map(|machine| {
            let digest = digest(image.as_bytes());
            format!(r#"{{"digest":"{digest}","platform":{{"os":"linux","architecture":"{machine}"}}}}"#)
        });
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let layers = layers.iter().map(|layer| Bytes::from(layer.clone()));
        let by_digest = layers.chain([image.into(), index.clone().into()]);
        self.things = by_digest.map(|bytes| (digest(&bytes), bytes)).collect();
        self.things.push(("1".to_owned(), index.into()));
    }

    /// The image's digest.
    pub fn digest(&self) -> String {
        digest(&self.things.last().unwrap().1)
    }
}

/// Serves it.
pub fn router(content: &Arc<Mutex<Content>>) -> Router {
    Router::new()
        .route("/v2/istio/proxyv2/{kind}/{name}", get(thing))
        .route("/token", get(token))
        .with_state(Arc::clone(content))
}

impl Registry {
    /// Starts one with an image of these layers.
    pub async fn with(layers: &[Vec<u8>]) -> Self {
        let content = Arc::new(Mutex::new(Content::of(layers)));
        let server = Server::plain(router(&content)).await;
        content.lock().unwrap().url = server.url.clone();
        Self { server, content }
    }

    /// Replaces what is in it.
    pub fn hold(&self, layers: &[Vec<u8>]) {
        self.edit(|content| content.hold(layers));
    }

    /// Changes what is in it, or looks at it.
    pub fn edit<T>(&self, edit: impl FnOnce(&mut Content) -> T) -> T {
        edit(&mut self.content.lock().unwrap())
    }

    /// The image by its tag.
    pub fn image(&self) -> String {
        format!("{}/istio/proxyv2:1", self.server.url.trim_start_matches("http://"))
    }

    /// The image by its tag and its digest.
    pub fn pinned(&self) -> String {
        format!("{}@{}", self.image(), self.edit(|content| content.digest()))
    }
}

async fn thing(
    State(content): State<Arc<Mutex<Content>>>,
    Path((kind, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let mut content = content.lock().unwrap();
    content.asked.push(format!("{kind} {name}"));
    let shown = headers.get("authorization").map(|it| it.to_str().unwrap());
    if content.login.is_some() && shown != Some("Bearer let-me-in") {
        let challenge = format!("Bearer realm=\"{}/token\",service=\"test\"", content.url);
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", challenge)]).into_response();
    }
    let found = content.things.iter().find(|(it, _)| *it == name);
    match found {
        Some((_, bytes)) => bytes.clone().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn token(State(content): State<Arc<Mutex<Content>>>, headers: HeaderMap) -> Response {
    let wanted = content.lock().unwrap().login.clone().unwrap_or_default();
    match headers.get("authorization") {
        Some(shown) if shown.to_str().unwrap() == format!("Basic {wanted}") => {
            r#"{"token":"let-me-in"}"#.into_response()
        }
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}
