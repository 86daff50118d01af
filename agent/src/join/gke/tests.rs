use std::sync::Mutex as Lock;
use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use kit::web::Server;
use serde_json::{Value, json};

use super::*;
use crate::config::GkeEndpoint;
use crate::google::fixtures::{MetadataServer, client};

const PATH: &str = "/v1/projects/shop/locations/europe-west1/clusters/boutique";

/// The Kubernetes Engine API's answer, and the tokens that it has seen.
#[derive(Debug)]
struct Api {
    answer: Lock<(u16, Value)>,
    tokens: Lock<Vec<String>>,
}

async fn answer(State(api): State<Arc<Api>>, headers: HeaderMap) -> Response {
    let token = headers["authorization"].to_str().unwrap().to_owned();
    api.tokens.lock().unwrap().push(token);
    let (code, body) = api.answer.lock().unwrap().clone();
    (StatusCode::from_u16(code).unwrap(), body.to_string()).into_response()
}

/// The API server of a cluster that has Istio and no WorkloadGroup.
async fn no_group() -> (StatusCode, String) {
    let status = json!({"message": "not found", "details": {"name": "catalog"}});
    (StatusCode::NOT_FOUND, status.to_string())
}

struct Fixture {
    metadata: MetadataServer,
    api: Arc<Api>,
    server: Server,
    /// Behind which an API server would be.
    open_port: tokio::net::TcpListener,
}

impl Fixture {
    async fn new() -> Self {
        let open_port = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let api = Arc::new(Api {
            answer: Lock::new((200, Value::Null)),
            tokens: Lock::default(),
        });
        let router = Router::new()
            .route(PATH, get(answer))
            .fallback(no_group)
            .with_state(api.clone());
        let fixture = Self {
            metadata: MetadataServer::start().await,
            server: Server::tls(router).await,
            api,
            open_port,
        };
        fixture.answer(200, fixture.cluster(json!({})));
        fixture
    }

    fn answer(&self, code: u16, body: Value) {
        *self.api.answer.lock().unwrap() = (code, body);
    }

    fn cluster(&self, more: Value) -> Value {
        let mut cluster = json!({
            "name": "boutique",
            "status": "RUNNING",
            "endpoint": self.open(),
            "masterAuth": {"clusterCaCertificate": STANDARD.encode(&self.server.root_pem)},
        });
        for (key, value) in more.as_object().unwrap() {
            cluster[key] = value.clone();
        }
        cluster
    }

    fn open(&self) -> String {
        self.open_port.local_addr().unwrap().to_string()
    }

    fn gke(&self) -> Gke {
        let text = format!(
            "project = \"shop\"\nlocation = \"europe-west1\"\ncluster = \"boutique\"\nnamespace = \"shop\"\n\
             workload_group = \"catalog\"\napi = {:?}",
            self.server.url
        );
        let config: GkeConfig = toml::from_str(&text).unwrap();
        let trust = Trust::Roots {
            pem: self.server.root_pem.clone(),
            place: "the test".to_owned(),
        };
        Gke::new(
            &config,
            GroupRef::of(&config.group(), config.keys, &Config::default()),
            client(&self.metadata),
            trust,
        )
    }
}

async fn endpoint(gke: &Gke) -> ApiEndpoint {
    gke.0.kubernetes().await.unwrap();
    gke.0.found.lock().await.clone().unwrap().endpoint
}

async fn error_of(gke: &Gke) -> String {
    format!("{:#}", gke.0.kubernetes().await.unwrap_err())
}

#[tokio::test]
async fn api_server_is_found_with_the_instances_token_and_followed() {
    let fixture = Fixture::new().await;
    let gke = fixture.gke();
    let first = endpoint(&gke).await;
    assert_eq!(first.server, format!("https://{}", fixture.open()));
    assert_eq!(*fixture.api.tokens.lock().unwrap(), ["Bearer token-1"]);
    let kubernetes = gke.0.kubernetes().await.unwrap();
    assert!(
        Arc::ptr_eq(&kubernetes, &gke.0.kubernetes().await.unwrap()),
        "made anew without need"
    );

    let other_ca = Server::tls(Router::new()).await.root_pem;
    let other_ca = json!({"masterAuth": {"clusterCaCertificate": STANDARD.encode(other_ca)}});
    fixture.answer(200, fixture.cluster(other_ca));
    let rotated = endpoint(&gke).await;
    assert_eq!(
        (&rotated.server, news(Some(&first), &rotated)),
        (&first.server, "the API server of the cluster has another CA now")
    );
    assert_ne!(rotated, first);

    fixture.answer(503, Value::Null);
    assert_eq!(endpoint(&gke).await, rotated);
}

#[tokio::test]
async fn endpoint_that_first_lets_the_vm_in_is_used() {
    let fixture = Fixture::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let private = json!({"privateClusterConfig": {"privateEndpoint": closed, "publicEndpoint": fixture.open()}});
    fixture.answer(200, fixture.cluster(private));
    assert_eq!(endpoint(&fixture.gke()).await.kind, GkeEndpoint::Public);

    let both = json!({"endpoint": closed, "privateClusterConfig": {"privateEndpoint": closed, "publicEndpoint": format!("{closed}1")}});
    fixture.answer(200, fixture.cluster(both));
    let error = error_of(&fixture.gke()).await;
    assert!(error.starts_with("no endpoint of projects/shop/"), "{error}");
    assert!(
        error.contains(&format!("private https://{closed}: ")) && error.contains("--enable-dns-access"),
        "{error}"
    );
}

#[tokio::test]
async fn refusals_name_what_was_asked_and_the_remedy() {
    let fixture = Fixture::new().await;
    let gke = fixture.gke();
    fixture.answer(
        403,
        json!({"error": {"code": 403, "message": "Required \"container.clusters.get\" permission(s)."}}),
    );
    let error = error_of(&gke).await;
    assert!(
        error.starts_with("failed to find projects/shop/locations/europe-west1/clusters/boutique: "),
        "{error}"
    );
    assert!(error.contains("roles/container.clusterViewer"), "{error}");

    fixture.answer(401, json!({"error": {"code": 401}}));
    error_of(&gke).await;
    error_of(&gke).await;
    let last = fixture.api.tokens.lock().unwrap().last().unwrap().clone();
    assert_eq!(last, "Bearer token-2", "a refused token is used again");

    fixture.answer(200, json!("<html>"));
    let error = error_of(&gke).await;
    assert!(error.contains("gave what is no cluster"), "{error}");
    fixture.metadata.no_service_account.store(true, Ordering::Relaxed);
    let error = error_of(&fixture.gke()).await;
    assert!(error.starts_with("this VM has no service account"), "{error}");
}

#[tokio::test]
async fn clusters_refusals_name_the_keys_that_were_written() {
    let fixture = Fixture::new().await;
    let here = fixture.server.url.trim_start_matches("https://");
    fixture.answer(200, fixture.cluster(json!({"endpoint": here})));
    let gke = fixture.gke();
    let error = format!("{:#}", gke.bundle().await.unwrap_err());
    assert!(
        error.contains("correct join.gke.namespace or join.gke.workload_group"),
        "{error}"
    );
}
