use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::HeaderMap as RequestHeaders;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::DATE;
use kit::web::Server;

use super::*;
use crate::host::System;

/// The server's files, and what it has been asked.
#[derive(Debug, Default)]
struct Shelf {
    date: Mutex<Option<&'static str>>,
    files: Mutex<BTreeMap<String, String>>,
    whole: AtomicUsize,
    not_modified: AtomicUsize,
    /// The value that a request must carry as `x-key`.
    key: Mutex<Option<String>>,
}

impl Shelf {
    fn put(&self, file: &str, text: &str) {
        self.files.lock().unwrap().insert(file.to_owned(), text.to_owned());
    }

    fn counts(&self) -> (usize, usize) {
        (
            self.whole.load(Ordering::Relaxed),
            self.not_modified.load(Ordering::Relaxed),
        )
    }
}

async fn serve(shelf: State<Arc<Shelf>>, file: Path<String>, headers: RequestHeaders) -> Response {
    let date = *shelf.date.lock().unwrap();
    let mut response = answer(shelf, file, headers).await;
    if let Some(date) = date {
        response.headers_mut().insert(DATE, HeaderValue::from_static(date));
    }
    response
}

async fn answer(State(shelf): State<Arc<Shelf>>, Path(file): Path<String>, headers: RequestHeaders) -> Response {
    let key = shelf.key.lock().unwrap().clone();
    if key.is_some_and(|key| headers.get("x-key").is_none_or(|sent| *sent != key)) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Some(text) = shelf.files.lock().unwrap().get(&file).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let tag = format!(
        "\"{:x}\"",
        text.bytes()
            .fold(7_u32, |hash, byte| hash.wrapping_mul(31) ^ u32::from(byte))
    );
    if headers.get(IF_NONE_MATCH).is_some_and(|known| *known == tag) {
        shelf.not_modified.fetch_add(1, Ordering::Relaxed);
        return StatusCode::NOT_MODIFIED.into_response();
    }
    shelf.whole.fetch_add(1, Ordering::Relaxed);
    ([(ETAG, tag)], text).into_response()
}

/// The file as istioctl wrote it.
fn golden(file: &str) -> &'static str {
    match file {
        "cluster.env" => include_str!("../../../tests/golden/vm-bundle/cluster.env"),
        "mesh.yaml" => include_str!("../../../tests/golden/vm-bundle/mesh.yaml"),
        "root-cert.pem" => include_str!("../../../tests/golden/vm-bundle/root-cert.pem"),
        _ => include_str!("../../../tests/golden/vm-bundle/hosts"),
    }
}

/// The file of a later bundle.
fn later(file: &str) -> String {
    match file {
        "cluster.env" => golden(file).to_owned() + "LATER=1\n",
        "mesh.yaml" => golden(file).to_owned() + "  serviceCluster: later\n",
        "root-cert.pem" => golden(file).repeat(2),
        _ => golden(file).replace("10.200.0.2", "10.200.0.9"),
    }
}

struct Fixture {
    shelf: Arc<Shelf>,
    server: Server,
    root: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let shelf = Arc::new(Shelf::default());
        for file in ["cluster.env", "mesh.yaml", "root-cert.pem", "hosts"] {
            shelf.put(file, golden(file));
        }
        let router = Router::new()
            .route("/shop/{file}", get(serve))
            .with_state(Arc::clone(&shelf));
        let server = Server::tls(router).await;
        let root = tempfile::tempdir().unwrap();
        let fixture = Self { shelf, server, root };
        fixture.write("/ca.pem", &fixture.server.root_pem, 0o644);
        fixture
    }

    fn host(&self) -> Host {
        Host::new(self.root.path(), System)
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        self.host().write(path.as_ref(), text, mode, None).unwrap();
    }

    fn config(&self) -> HttpsConfig {
        HttpsConfig {
            url: format!("{}/shop", self.server.url),
            ca_file: Some("/ca.pem".into()),
            header_file: None,
            public_key: None,
            poll: Duration::from_secs(60),
        }
    }

    /// Waits for nothing at the first look.
    fn open(&self) -> Https {
        self.open_with(&self.config())
    }

    fn open_with(&self, config: &HttpsConfig) -> Https {
        Https::quiescence(config, &self.host(), Duration::ZERO).unwrap()
    }
}

async fn error_of(https: &Https) -> String {
    format!("{:#}", https.bundle().await.unwrap_err())
}

#[tokio::test]
async fn files_are_sent_again_only_when_they_have_changed() {
    let fixture = Fixture::new().await;
    let https = fixture.open();
    let first = https.bundle().await.unwrap();
    assert_eq!(first.env["TRUST_DOMAIN"], "cluster.local");
    let place = first.origins.proxy_config.to_string();
    assert_eq!(place, format!("{}/shop/mesh.yaml", fixture.server.url));
    // What is new is looked at twice.
    assert_eq!(fixture.shelf.counts(), (4, 4));
    https.accepted(&first);
    assert_eq!(https.bundle().await.unwrap(), first);
    assert_eq!(fixture.shelf.counts(), (4, 8));
    fixture.shelf.put("hosts", &later("hosts"));
    https.bundle().await.unwrap();
    assert_eq!(fixture.shelf.counts(), (5, 11));
}

/// Half a poll goes by.
async fn wait() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(30)).await;
    tokio::time::resume();
}

#[tokio::test]
async fn files_published_one_by_one_are_taken_whole() {
    let fixture = Fixture::new().await;
    let https = fixture.open();
    let old = https.bundle().await.unwrap();
    https.accepted(&old);
    for file in ["cluster.env", "mesh.yaml", "root-cert.pem", "hosts"] {
        fixture.shelf.put(file, &later(file));
        for _ in 0..2 {
            assert_eq!(https.bundle().await.unwrap(), old, "with {file}");
        }
        wait().await;
    }
    // The last file was there at the last look, half a poll ago.
    let new = https.bundle().await.unwrap();
    assert_eq!(
        (&*new.env["LATER"], &new.hosts[0].ip.to_string()[..]),
        ("1", "10.200.0.9")
    );

    // What was found to be of no use stays what is there, and what is in use is used again when it comes back.
    assert_eq!(https.bundle().await.unwrap(), new);
    for file in ["cluster.env", "mesh.yaml", "root-cert.pem", "hosts"] {
        fixture.shelf.put(file, golden(file));
    }
    assert_eq!(https.bundle().await.unwrap(), old);
}

#[tokio::test]
async fn server_s_date_tells_a_wrong_clock() {
    let fixture = Fixture::new().await;
    let https = fixture.open();
    https.bundle().await.unwrap();
    assert_eq!(https.clock_problem(), None);
    *fixture.shelf.date.lock().unwrap() = Some("Thu, 01 Jan 1970 00:00:00 GMT");
    https.bundle().await.unwrap();
    let problem = https.clock_problem().unwrap();
    assert!(
        problem.ends_with("the server's 1970-01-01T00:00:00Z: set the clock"),
        "{problem}"
    );
}

#[tokio::test]
async fn file_that_is_missing_empty_or_too_long_is_named() {
    let fixture = Fixture::new().await;
    let https = fixture.open();
    fixture.shelf.put("root-cert.pem", "\n");
    let error = error_of(&https).await;
    assert_eq!(error, format!("{}/shop/root-cert.pem: is empty", fixture.server.url));
    fixture.shelf.put("root-cert.pem", &"x".repeat(MAX_BYTES + 1));
    let error = error_of(&https).await;
    assert!(
        error.contains("root-cert.pem: the answer is longer than 1048576 bytes"),
        "{error}"
    );
    fixture.shelf.files.lock().unwrap().remove("root-cert.pem");
    let error = error_of(&https).await;
    assert!(error.contains("root-cert.pem: is not there"), "{error}");
}

#[tokio::test]
async fn hosts_may_be_empty_until_they_were_not() {
    let fixture = Fixture::new().await;
    let https = fixture.open();
    fixture.shelf.put("hosts", "");
    assert_eq!(https.bundle().await.unwrap().hosts, []);
    fixture.shelf.put("hosts", "10.0.0.1 istiod.istio-system.svc");
    https.bundle().await.unwrap();
    fixture.shelf.put("hosts", "");
    let error = error_of(&https).await;
    assert!(error.ends_with("/hosts: is empty"), "{error}");
}

#[tokio::test]
async fn header_is_sent_read_anew_and_never_shown() {
    let fixture = Fixture::new().await;
    *fixture.shelf.key.lock().unwrap() = Some("secret-1".to_owned());
    let error = error_of(&fixture.open()).await;
    assert!(
        error.contains("answers 403 Forbidden: it wants to know who asks: set join.https.header_file"),
        "{error}"
    );

    fixture.write("/header", "X-Key: secret-0", 0o600);
    let config = HttpsConfig {
        header_file: Some("/header".into()),
        ..fixture.config()
    };
    let https = fixture.open_with(&config);
    let error = error_of(&https).await;
    assert!(error.contains("it doesn't accept the header of /header"), "{error}");
    fixture.write("/header", "X-Key: secret-1", 0o600);
    https.bundle().await.unwrap();
    assert!(!format!("{https:?} {error}").contains("secret"));

    fixture.write("/header", "X-Key: secret-1", 0o640);
    let error = Https::open(&config, &fixture.host()).unwrap_err().to_string();
    assert!(
        error.starts_with("join.https.header_file: /header: others may open it (mode 0640)"),
        "{error}"
    );
}

#[tokio::test]
async fn server_of_another_ca_is_refused_until_its_ca_is_given() {
    let (fixture, other) = (Fixture::new().await, Fixture::new().await);
    fixture.write("/ca.pem", &other.server.root_pem, 0o644);
    let https = fixture.open();
    let error = error_of(&https).await;
    assert!(
        error.contains("the roots of join.https.ca_file (/ca.pem) don't vouch for"),
        "{error}"
    );
    fixture.write("/ca.pem", &fixture.server.root_pem, 0o644);
    https.bundle().await.unwrap();
    fixture.write("/ca.pem", "none", 0o644);
    let error = Https::open(&fixture.config(), &fixture.host()).unwrap_err().to_string();
    assert!(error.contains("holds no certificate"), "{error}");
}

#[tokio::test]
async fn token_is_asked_for_at_every_need() {
    let fixture = Fixture::new().await;
    let https = fixture.open();
    let error = format!("{:#}", https.token().await.unwrap_err());
    assert!(error.contains("/shop/istio-token: is not there"), "{error}");
    for token in ["a.b.c", "d.e.f"] {
        fixture.shelf.put("istio-token", token);
        https.token().await.unwrap();
    }
    assert_eq!(fixture.shelf.counts(), (2, 0));
    fixture.shelf.put("istio-token", "<html>log in</html> secret");
    let error = format!("{:#}", https.token().await.unwrap_err());
    assert!(error.ends_with("/istio-token: holds no JWT"), "{error}");
    assert_eq!(https.place(), format!("{}/shop/istio-token", fixture.server.url));
}
