//! Google as a VM sees it: the metadata server at 169.254.169.254 and the Kubernetes Engine API at
//! container.googleapis.com, with Google's paths, headers and error shapes, and TLS where Google has it.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kit::google::Metadata;
use serde_json::{Value, json};

use crate::network::{EtcView, Host, Network};
use crate::pki::Pki;
use crate::web::WebServer;

/// The metadata server's own.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The Kubernetes Engine API's name.
const API: &str = "container.googleapis.com";

/// Both servers. Dropped: gone.
#[derive(Debug)]
pub struct Google {
    metadata: Arc<Metadata>,
    clusters: Arc<Clusters>,
    ca_file: PathBuf,
    _server: WebServer,
    _api: WebServer,
}

/// The Kubernetes Engine API.
#[derive(Debug)]
struct Clusters {
    /// Whoever has it may ask.
    token: String,
    /// By path; what isn't there is forbidden.
    clusters: Mutex<BTreeMap<String, Value>>,
}

impl Google {
    /// Starts both on the control plane's host, where the VM finds them; `token` is what the instance's service account
    /// proves itself with.
    pub fn start(network: &Network, etc: EtcView, token: &str) -> Result<Self> {
        let metadata = Metadata::new("boutique", Some(token.to_owned()));
        metadata.set_value("instance/preempted", "FALSE");
        metadata.set_value("instance/maintenance-event", "NONE");
        let address = METADATA.to_string();
        network.run(
            Host::ControlPlane,
            "ip",
            &["addr", "add", &format!("{address}/32"), "dev", "eth0"],
        )?;
        network.run(Host::Vm, "ip", &["route", "add", &address, "dev", "eth0"])?;
        let at = SocketAddr::from((METADATA, 80));
        let server = WebServer::start(network, Host::ControlPlane, at, None, metadata.router())?;

        let pki = Pki::default();
        let ca_file = network.folder().join("google-ca.pem");
        fs::write(&ca_file, pki.root_pem())?;
        let host = Host::ControlPlane.ipv4();
        let hosts = network.hosts_file(Host::Vm, etc);
        let known = fs::read_to_string(&hosts).unwrap_or_default();
        fs::write(&hosts, format!("{known}{host} {API}\n"))?;
        let clusters = Arc::new(Clusters {
            token: token.to_owned(),
            clusters: Mutex::default(),
        });
        let router = Router::new()
            .route("/v1/{*name}", get(describe))
            .with_state(Arc::clone(&clusters));
        let credentials = pki.issue_for_names(&[API]);
        let at = SocketAddr::from((host, 443));
        let api = WebServer::start(network, Host::ControlPlane, at, Some(&credentials), router)?;
        Ok(Self {
            metadata,
            clusters,
            ca_file,
            _server: server,
            _api: api,
        })
    }

    /// Roots that the VM must trust, as every system trusts Google.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// Sets an attribute of the instance.
    pub fn set_attribute(&self, name: &str, value: &str) {
        self.metadata.set_instance(name, value);
    }

    /// Sets a value that the instance waits for, by its path.
    pub fn set_value(&self, path: &str, value: &str) {
        self.metadata.set_value(path, value);
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
        lock(&self.clusters.clusters).insert(name.to_owned(), cluster);
    }
}

async fn describe(State(known): State<Arc<Clusters>>, UrlPath(name): UrlPath<String>, headers: HeaderMap) -> Response {
    let refusal = |code: StatusCode, status: &str, message: String| {
        let error = json!({"error": {"code": code.as_u16(), "message": message, "status": status}});
        (code, error.to_string()).into_response()
    };
    let expected = format!("Bearer {}", known.token);
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
    match lock(&known.clusters).get(&name) {
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
