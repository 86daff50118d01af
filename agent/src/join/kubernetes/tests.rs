//! Against a small API server with TLS: what is asked, with what, and what its refusals become.

use std::collections::BTreeMap;
use std::path::Path;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::*;
use crate::control_plane::fixtures::jwt;
use crate::host::System;
use crate::web::fixtures::Server;

const GROUP: &str = "/apis/networking.istio.io/v1/namespaces/shop/workloadgroups/productcatalog";
const MESH: &str = "/api/v1/namespaces/istio-system/configmaps/istio";
const ROOTS_PATH: &str = "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert";
const INGRESS: &str = "/api/v1/namespaces/istio-system/services/istio-eastwestgateway";
const TOKEN: &str = "/api/v1/namespaces/shop/serviceaccounts/productcatalog/token";
const WATCHES: &str = "/apis/networking.istio.io/v1/namespaces/shop/workloadgroups";

/// What the server has and was asked.
#[derive(Clone, Debug)]
struct Cluster {
    answers: Arc<Mutex<BTreeMap<String, (u16, Value)>>>,
    calls: Arc<Mutex<Vec<String>>>,
    /// Watches get an event when it turns, and none before.
    events: watch::Sender<u64>,
    date: Option<&'static str>,
}

impl Cluster {
    fn new() -> Self {
        let golden = include_str!("../../../tests/golden/istioctl/reference/objects.json");
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
        }
    }

    fn set(&self, path: &str, status: u16, body: Value) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body));
    }

    fn calls(&self) -> Vec<String> {
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
    let answer = cluster.answers.lock().unwrap().get(&path).cloned();
    let watching = query.contains("watch=1") && answer.is_none();
    if watching {
        let mut events = cluster.events.subscribe();
        events.wait_for(|count| *count > 0).await.unwrap();
    }
    let (status, body) = answer.unwrap_or_else(|| (200, json!({"type": "MODIFIED", "object": {}})));
    let mut response = (StatusCode::from_u16(status).unwrap(), body.to_string()).into_response();
    response
        .headers_mut()
        .insert(CONTENT_TYPE, "application/json".parse().unwrap());
    if let Some(date) = cluster.date {
        response.headers_mut().insert(DATE, date.parse().unwrap());
    }
    response
}

struct Case {
    cluster: Cluster,
    _server: Server,
    directory: tempfile::TempDir,
    kubernetes: Kubernetes,
}

impl Case {
    async fn new() -> Self {
        Self::with(Cluster::new(), "", "").await
    }

    /// `keys` of join.kubernetes beside those that are needed, and `tables` after it.
    async fn with(cluster: Cluster, keys: &str, tables: &str) -> Self {
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
        kubernetes.pace = Pace {
            watch: Duration::from_secs(600),
            poll: Duration::from_millis(1),
            spread: Duration::ZERO,
        };
        Self {
            cluster,
            _server: server,
            directory,
            kubernetes,
        }
    }

    async fn error(&self) -> String {
        format!("{:#}", self.kubernetes.documents().await.unwrap_err())
    }

    fn token_file(&self, text: &str) {
        let host = Host::new(self.directory.path(), System);
        host.write("/token".as_ref(), text, 0o600, None).unwrap();
    }
}

fn status(message: &str, name: &str) -> Value {
    json!({"kind": "Status", "message": message, "details": {"name": name}})
}

#[tokio::test]
async fn each_object_is_asked_for_by_name_with_the_token_of_the_file_as_it_is_now() {
    let case = Case::new().await;
    let documents = case.kubernetes.documents().await.unwrap();
    assert!(
        documents
            .cluster_env
            .text
            .contains("ISTIO_SERVICE='productcatalog.shop'\n"),
        "{documents:?}"
    );
    assert_eq!(documents.hosts.text, "203.0.113.7 istiod.istio-system.svc\n");
    assert!(documents.token.is_none());
    let mut calls = case.cluster.calls();
    calls.sort();
    let mut wanted = [GROUP, MESH, ROOTS_PATH, INGRESS].map(|path| format!("GET {path} Bearer first"));
    wanted.sort();
    assert_eq!(calls, wanted);
    case.token_file("second");
    case.kubernetes.documents().await.unwrap();
    assert!(case.cluster.calls().iter().all(|call| call.ends_with(" Bearer second")));
}

#[tokio::test]
async fn tokens_are_asked_for_the_groups_service_account_with_or_without_documents_before() {
    let case = Case::new().await;
    let tokens = case.kubernetes.tokens();
    let token = tokens.token().await.unwrap();
    assert_eq!(token.claims().unwrap().audience, ["istio-ca"]);
    let wanted = [
        format!("GET {GROUP} Bearer first"),
        format!("POST {TOKEN} Bearer first"),
    ];
    assert_eq!(case.cluster.calls(), wanted);
    tokens.token().await.unwrap();
    assert_eq!(case.cluster.calls(), wanted[1..]);
    let mut group = case.cluster.answers.lock().unwrap()[GROUP].1.clone();
    group["spec"]["template"]["serviceAccount"] = json!("../x");
    case.cluster.set(GROUP, 200, group);
    case.kubernetes.documents().await.unwrap();
    let error = tokens.token().await.unwrap_err().to_string();
    assert!(error.contains("\"../x\" is no name in Kubernetes"), "{error}");
}

#[tokio::test]
async fn a_change_is_seen_by_watching_each_object() {
    let case = Case::new().await;
    case.kubernetes.documents().await.unwrap();
    case.cluster.calls();
    let mut changed = std::pin::pin!(case.kubernetes.changed());
    // All four watches are up, and none has told anything.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while case.cluster.calls.lock().unwrap().len() < 4 && tokio::time::Instant::now() < deadline {
        tokio::select! {
            () = &mut changed => panic!("nothing has changed"),
            () = tokio::task::yield_now() => {}
        }
    }
    let calls = case.cluster.calls();
    assert!(
        calls
            .iter()
            .all(|call| call.contains("?watch=1&fieldSelector=metadata.name%3D")),
        "{calls:?}"
    );
    let group = format!("GET {WATCHES}?watch=1&fieldSelector=metadata.name%3Dproductcatalog&resourceVersion=7&");
    assert!(calls.iter().any(|call| call.starts_with(&group)), "{calls:?}");
    case.cluster.events.send_replace(1);
    changed.await;
}

#[tokio::test]
async fn what_may_not_be_watched_is_asked_for_from_time_to_time() {
    let case = Case::new().await;
    case.kubernetes.documents().await.unwrap();
    case.cluster.set(WATCHES, 403, status("no", ""));
    // The other three watches tell nothing.
    case.kubernetes.changed().await;
}

/// Path, status, the server's words, the name in them, and what the error says.
const REFUSALS: [(&str, u16, &str, &str, &[&str]); 9] = [
    (
        GROUP,
        404,
        "not found",
        "productcatalog",
        &[
            "failed to get workloadgroup shop/productcatalog at https://127.0.0.1:",
            "none of that name in namespace shop",
            "join.kubernetes.namespace",
            "istio-vm-agent manifests",
        ],
    ),
    (
        GROUP,
        404,
        "the server could not find the requested resource",
        "",
        &["has no WorkloadGroups: install Istio"],
    ),
    (
        GROUP,
        403,
        "forbidden: User \"vm\"\ncannot get",
        "productcatalog",
        &[
            "the token of /token may not do that",
            "a Role in namespace shop must have the rule {apiGroups: [\"networking.istio.io\"], resources: [workloadgroups], resourceNames: [productcatalog], verbs: [get]}",
            "istio-vm-agent manifests",
            "(403: forbidden: User \"vm\" cannot get)",
        ],
    ),
    (
        MESH,
        403,
        "x",
        "",
        &[
            "Role in namespace istio-system",
            "{apiGroups: [\"\"], resources: [configmaps], resourceNames: [istio], verbs: [get]}",
        ],
    ),
    (
        MESH,
        404,
        "x",
        "istio",
        &["no Istio of that revision in istio-system", "join.kubernetes.revision"],
    ),
    (
        ROOTS_PATH,
        404,
        "x",
        "istio-ca-root-cert",
        &["istiod puts it into each namespace", "does it serve shop?"],
    ),
    (INGRESS, 404, "x", "gw", &["join.kubernetes.ingress_service"]),
    (GROUP, 429, "later", "", &["too busy (429: later)"]),
    (GROUP, 503, "etcd", "", &["the API server failed (503: etcd)"]),
];

#[tokio::test]
async fn each_refusal_names_its_cause_and_the_remedy() {
    for (path, code, message, name, wanted) in REFUSALS {
        let case = Case::new().await;
        case.cluster.set(path, code, status(message, name));
        let error = case.error().await;
        for piece in wanted {
            assert!(
                error.contains(piece),
                "{path} {code}: {piece:?} is missing in {error:?}"
            );
        }
    }
    for (code, body, wanted) in [
        (404, json!("<html>"), "no Kubernetes API server"),
        (200, json!([]), "is none of Kubernetes"),
    ] {
        let case = Case::new().await;
        case.cluster.set(GROUP, code, body);
        let error = case.error().await;
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_made_is_explained_too() {
    let case = Case::new().await;
    for (code, wanted) in [
        (
            404,
            "service account productcatalog doesn't exist in namespace shop: create it, or correct spec.template.serviceAccount",
        ),
        (
            403,
            "resources: [serviceaccounts/token], resourceNames: [productcatalog], verbs: [create]",
        ),
    ] {
        case.cluster.set(TOKEN, code, status("x", "productcatalog"));
        let error = case.kubernetes.tokens().token().await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[tokio::test]
async fn a_token_that_is_not_accepted_is_explained_by_its_claims_and_the_clock() {
    let cases = [
        ("opaque", "the token of /token: is it of this cluster"),
        (
            &jwt(r#"{"aud":["kubernetes"],"exp":1}"#),
            "it expired at 1970-01-01T00:00:01Z: put a fresh one",
        ),
        (
            &jwt(r#"{"aud":["istio-ca"],"exp":99999999999}"#),
            "it is for istiod (audience \"istio-ca\")",
        ),
        (
            &jwt(r#"{"aud":["other"],"exp":99999999999}"#),
            "it is for audience \"other\"",
        ),
    ];
    let case = Case::new().await;
    case.cluster.set(GROUP, 401, status("Unauthorized", ""));
    for (token, wanted) in cases {
        case.token_file(token);
        let error = case.error().await;
        assert!(
            error.contains("the API server doesn't accept the token of /token") && error.contains(wanted),
            "{error}"
        );
        assert!(!error.contains(token), "{error}");
    }
    let mut cluster = Cluster::new();
    cluster.date = Some("Thu, 01 Jan 1970 00:00:00 GMT");
    let late = Case::with(cluster, "", "").await;
    late.cluster.set(GROUP, 401, status("Unauthorized", ""));
    let error = late.error().await;
    assert!(
        error.contains("this VM's clock says 2") && error.contains("the server's 1970-01-01T00:00:00Z: set the clock"),
        "{error}"
    );
    let mut cluster = Cluster::new();
    cluster.date = Some("Thu, 01 Jan 1970 00:00:00 GMT");
    let late = Case::with(cluster, "", "").await;
    assert_eq!(late.kubernetes.clock_problem(), None);
    late.kubernetes.documents().await.unwrap();
    let problem = late.kubernetes.clock_problem().unwrap();
    assert!(
        problem.contains("the server's 1970-01-01T00:00:00Z: set the clock"),
        "{problem}"
    );
    for (token, wanted) in [("", "/token is empty"), ("a b", "/token holds no bearer token")] {
        case.token_file(token);
        let error = case.error().await;
        assert!(error.contains(wanted), "{error}");
    }
    std::fs::remove_file(case.directory.path().join("token")).unwrap();
    assert!(case.error().await.contains("/token is missing"));
}

#[tokio::test]
async fn a_caller_of_another_namespace_is_told_so() {
    let case = Case::new().await;
    case.token_file(&jwt(r#"{"aud":["k"],"sub":"system:serviceaccount:bank:vm"}"#));
    case.cluster.set(GROUP, 403, status("x", ""));
    let error = case.error().await;
    assert!(
        error.contains("its service account is of namespace bank: is join.kubernetes.namespace = \"shop\" right?"),
        "{error}"
    );
}

#[tokio::test]
async fn istiods_address_comes_from_the_configuration_or_a_service_or_is_asked_for() {
    let given = Case::with(Cluster::new(), "ingress = \"localhost\"", "").await;
    let hosts = given.kubernetes.documents().await.unwrap().hosts.text;
    assert!(hosts.contains("127.0.0.1 istiod.istio-system.svc\n"), "{hosts}");
    assert!(!given.cluster.calls().iter().any(|call| call.contains(INGRESS)));
    let elsewhere = Case::with(Cluster::new(), "ingress_service = \"gw.edge\"", "").await;
    elsewhere
        .cluster
        .set("/api/v1/namespaces/edge/services/gw", 404, status("x", "gw"));
    assert!(elsewhere.error().await.contains("failed to get service edge/gw"));
    let pending = Case::new().await;
    pending.cluster.set(
        INGRESS,
        200,
        json!({"metadata": {"name": "gw", "namespace": "edge"}, "status": {"loadBalancer": {}}}),
    );
    assert!(
        pending
            .error()
            .await
            .starts_with("service edge/gw has no address outside the cluster: wait for its load balancer")
    );
    let unknown = Case::with(Cluster::new(), "ingress = \"no.such.invalid\"", "").await;
    assert!(
        unknown
            .error()
            .await
            .contains("join.kubernetes.ingress: failed to resolve no.such.invalid")
    );
    let addressed = Case::with(
        Cluster::new(),
        "",
        "[control_plane]\naddresses = [\"istiod.example:15012\"]",
    )
    .await;
    addressed.cluster.set(INGRESS, 403, status("x", "gw"));
    assert_eq!(addressed.kubernetes.documents().await.unwrap().hosts.text, "");
}
