//! Small web servers on a host of the network, with TLS as in production. They run in the test's own process; only
//! their socket is in the host's namespace.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Path as UrlPath, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kit::tls;
use kit::web::TlsListener;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::network::{Host, Network};
use crate::pki::Credentials;

/// A running server. Dropped: gone.
#[derive(Debug)]
pub struct WebServer {
    runtime: Option<Runtime>,
}

impl WebServer {
    /// Serves `router` at `address` on `host`; without `credentials`: plain HTTP.
    pub fn start(
        network: &Network,
        host: Host,
        address: SocketAddr,
        credentials: Option<&Credentials>,
        router: Router,
    ) -> Result<Self> {
        let socket = network.within(host, || {
            std::net::TcpListener::bind(address).with_context(|| format!("failed to listen at {address}"))
        })?;
        socket.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let acceptor = credentials.map(tls::acceptor);
        runtime.spawn(async move {
            let tcp = TcpListener::from_std(socket)?;
            match acceptor {
                Some(acceptor) => axum::serve(TlsListener { tcp, acceptor }, router).await,
                None => axum::serve(tcp, router).await,
            }
        });
        Ok(Self { runtime: Some(runtime) })
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// One file, at `/` and its name.
pub fn one_file(path: &Path) -> Router {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let path = path.to_owned();
    Router::new().route(
        &format!("/{name}"),
        get(async move || std::fs::read(path).map_err(|_| StatusCode::NOT_FOUND)),
    )
}

/// A folder's files, and those below it, at their paths.
pub fn folder(path: &Path) -> Router {
    let root = path.to_owned();
    let file = async move |UrlPath(path): UrlPath<String>| {
        let inside = !Path::new(&path).components().any(|part| part.as_os_str() == "..");
        let read = inside.then(|| std::fs::read(root.join(path)).ok());
        read.flatten().ok_or(StatusCode::NOT_FOUND)
    };
    Router::new().route("/{*path}", get(file))
}

/// A folder's files below `/bundle/`, with tags, for who sends the right header.
#[derive(Debug)]
pub struct SharedFolder {
    folder: PathBuf,
    header: (&'static str, String),
    whole: AtomicUsize,
    not_modified: AtomicUsize,
}

impl SharedFolder {
    /// `header`: what every request must carry.
    pub fn new(folder: &Path, header: (&'static str, &str)) -> Arc<Self> {
        Arc::new(Self {
            folder: folder.to_owned(),
            header: (header.0, header.1.to_owned()),
            whole: AtomicUsize::new(0),
            not_modified: AtomicUsize::new(0),
        })
    }

    /// For [`WebServer::start`].
    pub fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/bundle/{file}", get(file))
            .with_state(Arc::clone(self))
    }

    /// Numbers of files that were sent, and of those that were known already.
    pub fn counts(&self) -> BTreeMap<&'static str, usize> {
        BTreeMap::from([
            ("whole", self.whole.load(Ordering::Relaxed)),
            ("not modified", self.not_modified.load(Ordering::Relaxed)),
        ])
    }
}

async fn file(State(shared): State<Arc<SharedFolder>>, UrlPath(name): UrlPath<String>, headers: HeaderMap) -> Response {
    let (header, wanted) = &shared.header;
    if headers.get(*header).is_none_or(|sent| sent != wanted.as_str()) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Ok(text) = std::fs::read_to_string(shared.folder.join(&name)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let hash = text
        .bytes()
        .fold(7_u64, |hash, byte| hash.wrapping_mul(31) ^ u64::from(byte));
    let tag = format!("\"{hash:x}\"");
    if headers.get(IF_NONE_MATCH).is_some_and(|known| *known == tag) {
        shared.not_modified.fetch_add(1, Ordering::Relaxed);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    shared.whole.fetch_add(1, Ordering::Relaxed);
    ([(ETAG, tag)], text).into_response()
}
