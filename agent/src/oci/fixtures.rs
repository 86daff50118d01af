//! A registry on 127.0.0.1 for tests, of one image.

use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest as hash};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kit::web::Server;

/// Contents of a registry, and the requests to it.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Manifests and blobs, by digest, and manifests by tag.
    pub(crate) things: Vec<(String, Vec<u8>)>,
    /// The user and the password that it wants, in base64; absent: none.
    pub(crate) login: Option<String>,
    /// URL of this registry.
    url: String,
    pub(crate) asked: Vec<String>,
}

/// The registry.
#[derive(Debug)]
pub(crate) struct Registry {
    server: Server,
    content: Arc<Mutex<Content>>,
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(hash(&SHA256, bytes)))
}

impl Registry {
    /// An image `istio/proxyv2:1` of these layers, in an index with another machine's.
    pub(crate) async fn with(layers: &[Vec<u8>]) -> Self {
        let content = Arc::new(Mutex::new(Content::default()));
        let router = Router::new()
            .route("/v2/istio/proxyv2/{kind}/{name}", get(thing))
            .route("/token", get(token))
            .with_state(Arc::clone(&content));
        let server = Server::plain(router).await;
        content.lock().unwrap().url = server.url.clone();
        let registry = Self { server, content };
        registry.hold(layers);
        registry
    }

    /// Replaces what is in it.
    pub(crate) fn hold(&self, layers: &[Vec<u8>]) {
        let listed: Vec<String> = layers
            .iter()
            .map(|layer| format!(r#"{{"digest":"{}","size":{}}}"#, digest(layer), layer.len()))
            .collect();
        let image = format!(r#"{{"layers":[{}]}}"#, listed.join(","));
        let entries: Vec<String> = [("amd64", digest(image.as_bytes())), ("arm64", digest(image.as_bytes()))]
            .iter()
            .map(|(machine, digest)| {
                format!(r#"{{"digest":"{digest}","platform":{{"os":"linux","architecture":"{machine}"}}}}"#)
            })
            .collect();
        let index = format!(r#"{{"manifests":[{}]}}"#, entries.join(","));
        let mut things: Vec<_> = layers.iter().map(|layer| (digest(layer), layer.clone())).collect();
        things.push((digest(image.as_bytes()), image.into_bytes()));
        things.push((digest(index.as_bytes()), index.clone().into_bytes()));
        things.push(("1".to_owned(), index.into_bytes()));
        self.edit(|content| content.things = things);
    }

    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut Content) -> T) -> T {
        edit(&mut self.content.lock().unwrap())
    }

    /// The image by its tag.
    pub(crate) fn image(&self) -> String {
        format!("{}/istio/proxyv2:1", self.server.url.trim_start_matches("http://"))
    }

    /// The image by its tag and its digest.
    pub(crate) fn pinned(&self) -> String {
        let digest = self.edit(|content| digest(&content.things.last().unwrap().1));
        format!("{}@{digest}", self.image())
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
