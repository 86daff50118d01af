//! Google as a VM sees it: the metadata server at 169.254.169.254 and the Kubernetes Engine API at
//! container.googleapis.com, with Google's paths, headers and error shapes, and TLS where Google has it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::network::{EtcView, Host, Network};
use crate::pki::Pki;
use crate::web::WebServer;

/// The metadata server's own.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
const FLAVOR: (&str, &str) = ("Metadata-Flavor", "Google");
/// The Kubernetes Engine API's name.
const API: &str = "container.googleapis.com";

/// Both servers. Dropped: gone.
#[derive(Debug)]
pub struct Google {
    said: Arc<Said>,
    ca_file: PathBuf,
    _metadata: WebServer,
    _api: WebServer,
}

#[derive(Debug)]
struct Said {
    /// Of the instance's service account.
    token: String,
    attributes: Mutex<BTreeMap<String, String>>,
    /// Values that change, by path, each with its etag.
    values: watch::Sender<BTreeMap<String, (u64, String)>>,
    /// By path; what isn't there is forbidden.
    clusters: Mutex<BTreeMap<String, Value>>,
}

impl Google {
    /// Starts both on the control plane's host, where the VM finds them; `token` is what the instance's service account
    /// proves itself with.
    pub fn start(network: &Network, etc: EtcView, token: &str) -> Result<Self> {
        let said = Arc::new(Said {
            token: token.to_owned(),
            attributes: Mutex::default(),
            values: watch::Sender::new(BTreeMap::from([
                ("instance/preempted".to_owned(), (0, "FALSE".to_owned())),
                ("instance/maintenance-event".to_owned(), (0, "NONE".to_owned())),
            ])),
            clusters: Mutex::default(),
        });
        let metadata = METADATA.to_string();
        network.run(
            Host::ControlPlane,
            "ip",
            &["addr", "add", &format!("{metadata}/32"), "dev", "eth0"],
        )?;
        network.run(Host::Vm, "ip", &["route", "add", &metadata, "dev", "eth0"])?;
        let router = Router::new()
            .route("/computeMetadata/v1/{*path}", get(tell))
            .with_state(Arc::clone(&said));
        let at = SocketAddr::from((METADATA, 80));
        let metadata = WebServer::start(network, Host::ControlPlane, at, None, router)?;

        let pki = Pki::default();
        let ca_file = network.folder().join("google-ca.pem");
        fs::write(&ca_file, pki.root_pem())?;
        let host = Host::ControlPlane.ipv4();
        let hosts = network.hosts_file(Host::Vm, etc);
        let known = fs::read_to_string(&hosts).unwrap_or_default();
        fs::write(&hosts, format!("{known}{host} {API}\n"))?;
        let router = Router::new()
            .route("/v1/{*name}", get(describe))
            .with_state(Arc::clone(&said));
        let credentials = pki.issue_for_names(&[API]);
        let at = SocketAddr::from((host, 443));
        let api = WebServer::start(network, Host::ControlPlane, at, Some(&credentials), router)?;
        Ok(Self {
            said,
            ca_file,
            _metadata: metadata,
            _api: api,
        })
    }

    /// Roots that the VM must trust, as every system trusts Google.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Sets an attribute of the instance.
    pub fn set_attribute(&self, name: &str, value: &str) {
        lock(&self.said.attributes).insert(name.to_owned(), value.to_owned());
    }

    /// Sets a value that the instance waits for, by its path.
    pub fn set_value(&self, path: &str, value: &str) {
        self.said.values.send_modify(|values| {
            let (etag, known) = values.entry(path.to_owned()).or_default();
            *etag += 1;
            value.clone_into(known);
        });
    }

    /// Makes the Kubernetes Engine API tell of a cluster, by `projects/P/locations/L/clusters/C`.
    pub fn set_cluster(&self, name: &str, endpoint: &str, ca_pem: &str) {
        use base64::Engine;
        let ca = base64::engine::general_purpose::STANDARD.encode(ca_pem);
        let short = name.rsplit('/').next().unwrap_or_default();
        let cluster = json!({
            "name": short, "status": "RUNNING", "endpoint": endpoint, "masterAuth": {"clusterCaCertificate": ca},
            "privateClusterConfig": {"publicEndpoint": endpoint},
        });
        lock(&self.said.clusters).insert(name.to_owned(), cluster);
    }
}

async fn tell(
    State(said): State<Arc<Said>>,
    UrlPath(path): UrlPath<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if headers.get(FLAVOR.0).is_none_or(|value| value != FLAVOR.1) {
        return (StatusCode::FORBIDDEN, [FLAVOR]).into_response();
    }
    if let Some((etag, value)) = changing(&said, &path, query.get("last_etag")).await {
        return ([FLAVOR, ("etag", &*etag.to_string())], value).into_response();
    }
    let text = match path.as_str() {
        "instance/attributes/" => json!(*lock(&said.attributes)).to_string(),
        "project/attributes/" => "{}".to_owned(),
        "project/project-id" => "boutique".to_owned(),
        "instance/zone" => "projects/123456789/zones/europe-west1-b".to_owned(),
        "instance/service-accounts/default/token" => {
            json!({"access_token": said.token, "expires_in": 3599, "token_type": "Bearer"}).to_string()
        }
        _ => return (StatusCode::NOT_FOUND, [FLAVOR]).into_response(),
    };
    ([FLAVOR], text).into_response()
}

/// A value that changes: once its etag is another one than `last`, where the question names one.
async fn changing(said: &Said, path: &str, last: Option<&String>) -> Option<(u64, String)> {
    let mut values = said.values.subscribe();
    values.borrow().get(path)?;
    let is_another = |(etag, _): &(u64, String)| last.is_none_or(|last| *last != etag.to_string());
    let found = values
        .wait_for(|values| values.get(path).is_some_and(is_another))
        .await
        .ok()?;
    found.get(path).cloned()
}

async fn describe(State(said): State<Arc<Said>>, UrlPath(name): UrlPath<String>, headers: HeaderMap) -> Response {
    let refusal = |code: StatusCode, status: &str, message: String| {
        let error = json!({"error": {"code": code.as_u16(), "message": message, "status": status}});
        (code, error.to_string()).into_response()
    };
    let expected = format!("Bearer {}", said.token);
    if headers
        .get("authorization")
        .is_none_or(|value| value != expected.as_str())
    {
        return refusal(
            StatusCode::UNAUTHORIZED,
            "UNAUTHENTICATED",
            "Invalid credentials.".to_owned(),
        );
    }
    match lock(&said.clusters).get(&name) {
        Some(cluster) => cluster.to_string().into_response(),
        None => refusal(
            StatusCode::FORBIDDEN,
            "PERMISSION_DENIED",
            format!("Required \"container.clusters.get\" permission(s) for \"{name}\"."),
        ),
    }
}

fn lock<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
