//! The words that the API server's refusals become.

use serde_json::json;

use super::server::{Case, Cluster, status};
use super::*;
use crate::control_plane::fixtures::jwt;
use crate::join::Answered;

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
        &["serves no WorkloadGroups of networking.istio.io/v1: install Istio, 1.22 or later"],
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
    (
        INGRESS,
        404,
        "x",
        "gw",
        &["join.kubernetes.ingress_service", "`up --ingress`"],
    ),
    (GROUP, 429, "later", "", &["too busy (429: later)"]),
    (GROUP, 503, "etcd", "", &["the API server failed (503: etcd)"]),
];

#[tokio::test]
async fn refusals_name_their_cause_and_the_remedy() {
    for (path, code, message, name, wanted) in REFUSALS {
        let case = Case::new().await;
        case.cluster.set(path, code, status(message, name));
        let failure = case.kubernetes.bundle().await.unwrap_err();
        // What the server's own trouble is nobody mends by what it says.
        assert_eq!(failure.is::<Answered>(), code < 429, "{failure:#}");
        let error = format!("{failure:#}");
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
async fn token_that_is_not_made_is_explained_too() {
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
async fn token_that_is_not_accepted_is_explained_by_its_claims_and_the_clock() {
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
    late.kubernetes.bundle().await.unwrap();
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
    let error = case.error().await;
    assert!(
        error.starts_with("join.kubernetes.token_file: /token is missing: put it there"),
        "{error}"
    );
}

#[tokio::test]
async fn caller_of_another_namespace_is_told_so() {
    let case = Case::new().await;
    case.token_file(&jwt(r#"{"aud":["k"],"sub":"system:serviceaccount:bank:vm"}"#));
    case.cluster.set(GROUP, 403, status("x", ""));
    let error = case.error().await;
    assert!(
        error.contains("its service account is of namespace bank: is join.kubernetes.namespace = \"shop\" right?"),
        "{error}"
    );
}
