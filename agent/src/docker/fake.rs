//! A Docker Engine of the few calls that the agent makes, on a unix socket, that records what changes it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::extract::{Query, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use serde_json::{Value, json};
use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::supervise::Scope;

#[derive(Clone, Debug)]
pub(crate) struct Container {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    /// The name of its image, which is its id here as well.
    pub(crate) image: String,
    pub(crate) running: bool,
    pub(crate) status: i64,
}

#[derive(Default)]
pub(crate) struct Engine {
    pub(crate) images: BTreeSet<String>,
    pub(crate) containers: Vec<Container>,
    /// Labels of the images that have any.
    pub(crate) image_labels: BTreeMap<String, BTreeMap<String, String>>,
    /// The answer to /containers/NAME/archive, for every container.
    pub(crate) archive: Option<Vec<u8>>,
    /// The answer to a pull, instead of an image.
    pub(crate) pull_error: Option<String>,
    /// True while pulls wait.
    pub(crate) pull_waits: bool,
    /// Number of the next looks at containers that fail.
    pub(crate) failing_looks: usize,
    /// State of the HEALTHCHECK, by the container's name.
    pub(crate) health: BTreeMap<String, &'static str>,
    /// True where dockerd was told to have no bridge.
    pub(crate) is_bridgeless: bool,
    /// True while every container is paused.
    pub(crate) paused: bool,
    /// The login that came with the last pull, as JSON.
    pub(crate) login: Option<String>,
    /// Every call that changes something, in order.
    pub(crate) calls: Vec<String>,
    made: usize,
}

impl Engine {
    fn container(&mut self, key: &str) -> Option<&mut Container> {
        self.containers.iter_mut().find(|c| c.id == key || c.name == key)
    }
}

#[derive(Clone)]
struct Shared {
    engine: Arc<Mutex<Engine>>,
    /// Told of every change, for `wait`.
    changed: watch::Sender<()>,
}

pub(crate) struct Docker {
    shared: Shared,
    directory: tempfile::TempDir,
    running: Option<CancellationToken>,
}

impl Docker {
    /// Makes an Engine that isn't up yet.
    pub(crate) fn stopped() -> Self {
        let shared = Shared {
            engine: Arc::default(),
            changed: watch::channel(()).0,
        };
        Self {
            shared,
            directory: tempfile::tempdir().unwrap(),
            running: None,
        }
    }

    pub(crate) fn started() -> Self {
        let mut docker = Self::stopped();
        docker.start();
        docker
    }

    pub(crate) fn start(&mut self) {
        let listener = UnixListener::bind(self.socket()).unwrap();
        let app = Router::new().fallback(answer).with_state(self.shared.clone());
        let (scope, running) = Scope::detached();
        let stop = running.clone();
        scope.spawn(async move {
            let serve = axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await });
            serve.await.unwrap();
        });
        self.running = Some(running);
    }

    /// Stops it like a dockerd with live-restore: its sockets go, its containers don't.
    pub(crate) fn stop(&mut self) {
        self.running.take().unwrap().cancel();
        std::fs::remove_file(self.socket()).unwrap();
        self.shared.changed.send_replace(());
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory.path().join("docker.sock")
    }

    /// Changes the engine behind the agent's back.
    pub(crate) fn edit<T>(&self, edit: impl FnOnce(&mut Engine) -> T) -> T {
        let result = edit(&mut self.shared.engine.lock().unwrap());
        self.shared.changed.send_replace(());
        result
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.edit(|engine| engine.calls.clone())
    }
}

type Parameters = Query<HashMap<String, String>>;

async fn answer(
    State(shared): State<Shared>,
    method: Method,
    uri: Uri,
    query: Parameters,
    headers: HeaderMap,
    body: String,
) -> Response {
    let path = uri.path().trim_start_matches('/');
    // Most calls come with the API version in front.
    let path = match path.split_once('/') {
        Some((version, rest)) if version.starts_with("v1.") => rest.to_owned(),
        _ => path.to_owned(),
    };
    if let Some(id) = path
        .strip_prefix("containers/")
        .and_then(|rest| rest.strip_suffix("/wait"))
    {
        return wait(&shared, id).await;
    }
    if path == "images/create" {
        let mut changed = shared.changed.subscribe();
        while shared.engine.lock().unwrap().pull_waits {
            changed.changed().await.unwrap();
        }
    }
    let response = {
        let mut engine = shared.engine.lock().unwrap();
        match (method.as_str(), path.as_str()) {
            ("GET", "version") => Json(json!({ "ApiVersion": "1.41" })).into_response(),
            ("GET", "info") => Json(json!({ "LoggingDriver": "json-file" })).into_response(),
            ("GET", "networks/bridge") if !engine.is_bridgeless => Json(json!({ "Name": "bridge" })).into_response(),
            ("GET", "containers/json") => list(&engine),
            ("POST", "containers/create") => create(&mut engine, &query, &body),
            ("POST", "images/create") => {
                engine.login = headers.get("x-registry-auth").map(login);
                pull(&mut engine, &query)
            }
            ("GET", _) if path.starts_with("images/") => {
                let image = path.trim_start_matches("images/").trim_end_matches("/json");
                let labels = engine.image_labels.get(image);
                match engine.images.contains(image) || engine.containers.iter().any(|c| c.image == image) {
                    true => Json(json!({ "Id": image, "Config": { "Labels": labels } })).into_response(),
                    false => absent(),
                }
            }
            _ => one(&mut engine, &method, &path, &query),
        }
    };
    shared.changed.send_replace(());
    response
}

async fn wait(shared: &Shared, id: &str) -> Response {
    let mut changed = shared.changed.subscribe();
    loop {
        match shared.engine.lock().unwrap().container(id) {
            None => return absent(),
            Some(container) if !container.running => {
                return Json(json!({ "StatusCode": container.status })).into_response();
            }
            Some(_) => {}
        }
        changed.changed().await.unwrap();
    }
}

fn absent() -> Response {
    (StatusCode::NOT_FOUND, Json(json!({ "message": "no such thing" }))).into_response()
}

fn list(engine: &Engine) -> Response {
    let ours = engine
        .containers
        .iter()
        .filter(|c| c.labels.contains_key(super::MANAGED));
    Json(ours.map(|c| json!({ "Id": c.id })).collect::<Vec<_>>()).into_response()
}

fn create(engine: &mut Engine, query: &HashMap<String, String>, body: &str) -> Response {
    let body: Value = serde_json::from_str(body).unwrap();
    engine.made += 1;
    let container = Container {
        id: format!("{:064x}", engine.made),
        name: query["name"].clone(),
        labels: serde_json::from_value(body["Labels"].clone()).unwrap(),
        image: serde_json::from_value(body["Image"].clone()).unwrap(),
        running: false,
        status: 0,
    };
    engine.calls.push(format!("create {}", container.name));
    engine.containers.push(container);
    let id = format!("{:064x}", engine.made);
    (StatusCode::CREATED, Json(json!({ "Id": id, "Warnings": [] }))).into_response()
}

fn login(header: &HeaderValue) -> String {
    String::from_utf8(URL_SAFE.decode(header).unwrap()).unwrap()
}

fn pull(engine: &mut Engine, query: &HashMap<String, String>) -> Response {
    let (name, tag) = (&query["fromImage"], &query["tag"]);
    engine.calls.push(format!("pull {name} {tag}"));
    match &engine.pull_error {
        Some(error) => Json(json!({ "error": error, "errorDetail": { "message": error } })).into_response(),
        None => {
            let image = if tag.is_empty() {
                name.clone()
            } else {
                format!("{name}:{tag}")
            };
            engine.images.insert(image);
            Json(json!({ "status": "Pulled" })).into_response()
        }
    }
}

fn one(engine: &mut Engine, method: &Method, path: &str, query: &HashMap<String, String>) -> Response {
    let Some(rest) = path.strip_prefix("containers/") else {
        return absent();
    };
    let (key, verb) = rest.split_once('/').unwrap_or((rest, "remove"));
    if verb == "json" && engine.failing_looks > 0 {
        engine.failing_looks -= 1;
        return (StatusCode::INTERNAL_SERVER_ERROR, Json(json!({ "message": "busy" }))).into_response();
    }
    let (health, paused) = (engine.health.clone(), engine.paused);
    let Some(container) = engine.container(key) else {
        return absent();
    };
    let name = container.name.clone();
    match (method.as_str(), verb) {
        ("GET", "json") => {
            let Container {
                id,
                name,
                labels,
                image,
                running,
                status,
            } = container.clone();
            let health = health.get(&name).map(|status| json!({ "Status": status }));
            let state =
                json!({ "Running": running, "Paused": paused, "ExitCode": status, "Error": "", "Health": health });
            // The first that is made here has .3.
            let host = id.trim_start_matches('0').parse::<u8>().map_or(2, |number| number + 2);
            let networks = json!({ "Networks": { "bridge": { "IPAddress": format!("172.17.0.{host}") } } });
            let all = json!({
                "Id": id,
                "Name": format!("/{name}"),
                "State": state,
                "Image": image,
                "Config": { "Labels": labels },
                "NetworkSettings": networks,
            });
            return Json(all).into_response();
        }
        ("GET", "archive") => {
            engine.calls.push(format!("archive {name} {}", query["path"]));
            return engine.archive.clone().map_or_else(absent, IntoResponse::into_response);
        }
        ("POST", "rename") => {
            container.name.clone_from(&query["name"]);
            let call = format!("rename {name} {}", container.name);
            engine.calls.push(call);
            return StatusCode::NO_CONTENT.into_response();
        }
        ("POST", "start") => container.running = true,
        ("POST", "stop") => container.running = false,
        ("DELETE", _) => engine.containers.retain(|c| c.name != name),
        _ => return absent(),
    }
    let seconds = query.get("t").map(|t| format!(" t={t}")).unwrap_or_default();
    engine.calls.push(format!("{verb} {name}{seconds}"));
    StatusCode::NO_CONTENT.into_response()
}
