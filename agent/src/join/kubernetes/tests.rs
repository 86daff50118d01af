//! Against a small API server with TLS: what is asked, with what, and what its refusals become.

mod judged;
mod refusals;
mod server;

use std::time::UNIX_EPOCH;

use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::control_plane::fixtures::jwt;
use crate::facts::HostEntry;
use crate::host::System;
use crate::join::Join;
use server::{Case, Cluster, status};

const GROUP: &str = "/apis/networking.istio.io/v1/namespaces/shop/workloadgroups/productcatalog";
const MESH: &str = "/api/v1/namespaces/istio-system/configmaps/istio";
const ROOTS_PATH: &str = "/api/v1/namespaces/shop/configmaps/istio-ca-root-cert";
const INGRESS: &str = "/api/v1/namespaces/istio-system/services/istio-eastwestgateway";
const TOKEN: &str = "/api/v1/namespaces/shop/serviceaccounts/productcatalog/token";
const WATCHES: &str = "/apis/networking.istio.io/v1/namespaces/shop/workloadgroups";

#[tokio::test]
async fn objects_are_asked_for_by_name_with_the_token_of_the_file_as_it_is_now() {
    let case = Case::new().await;
    let bundle = case.kubernetes.bundle().await.unwrap();
    assert_eq!(bundle.env["ISTIO_SERVICE"], "productcatalog.shop");
    let istiod = HostEntry {
        ip: [203, 0, 113, 7].into(),
        names: vec!["istiod.istio-system.svc".to_owned()],
    };
    assert_eq!(bundle.hosts, [istiod]);
    assert!(bundle.token.is_none());
    let mut calls = case.cluster.calls();
    calls.sort();
    let mut wanted = [GROUP, MESH, ROOTS_PATH, INGRESS].map(|path| format!("GET {path} Bearer first"));
    wanted.sort();
    assert_eq!(calls, wanted);
    case.token_file("second");
    case.kubernetes.bundle().await.unwrap();
    assert!(case.cluster.calls().iter().all(|call| call.ends_with(" Bearer second")));
}

#[tokio::test]
async fn tokens_are_asked_for_the_groups_service_account_with_or_without_a_bundle_before() {
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
    case.kubernetes.bundle().await.unwrap();
    let error = tokens.token().await.unwrap_err().to_string();
    assert!(error.contains("\"../x\" is no name in Kubernetes"), "{error}");
}

/// Goes on until all four watches are up, and returns their calls.
async fn watches(case: &Case, changed: &mut (impl Future<Output = ()> + Unpin)) -> Vec<String> {
    timeout(Duration::from_secs(30), async {
        while case.cluster.calls.lock().unwrap().len() < 4 {
            tokio::select! {
                () = &mut *changed => panic!("nothing has changed"),
                () = tokio::task::yield_now() => {}
            }
        }
        case.cluster.calls()
    })
    .await
    .expect("not all are watched")
}

#[tokio::test]
async fn change_is_seen_by_watching_each_object() {
    let case = Case::new().await;
    case.kubernetes.bundle().await.unwrap();
    case.cluster.calls();
    let mut changed = std::pin::pin!(case.kubernetes.changed());
    let calls = watches(&case, &mut changed).await;
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
async fn watch_that_ends_at_once_without_a_word_is_no_news() {
    let case = Case::new().await;
    case.cluster.set(WATCHES, 200, json!(null));
    let (api, group) = (&case.kubernetes.api, case.kubernetes.group());
    let watched = api.wait_for_change(&group, "7", Duration::from_secs(600)).await;
    let error = watched.unwrap_err().to_string();
    assert!(error.contains("ended at once"), "{error}");
}

#[tokio::test]
async fn token_file_that_expired_serves_again_once_it_is_renewed() {
    let case = Case::new().await;
    let refuse = |token: &str| case.cluster.refuse(token);
    let expired = jwt(r#"{"aud":["kubernetes"],"exp":1}"#);
    case.token_file(&expired);
    refuse(&expired);
    let expected = "the token of /token: it expired at 1970-01-01T00:00:01Z: put a fresh one there";
    let tokens = case.kubernetes.tokens();
    for error in [case.error().await, tokens.token().await.unwrap_err().to_string()] {
        assert!(error.contains(expected), "{error}");
    }
    let (with, end) = tokens.credential_end().unwrap();
    assert_eq!(
        (with.as_str(), end),
        ("the token of /token", UNIX_EPOCH + Duration::from_secs(1))
    );
    case.token_file("renewed");
    case.kubernetes.bundle().await.unwrap();
    tokens.token().await.unwrap();
    assert_eq!(tokens.credential_end(), None);
}

#[tokio::test]
async fn objects_that_may_not_be_watched_are_asked_for_from_time_to_time() {
    let case = Case::new().await;
    case.kubernetes.bundle().await.unwrap();
    case.cluster.set(WATCHES, 403, status("no", ""));
    // The other three watches tell nothing.
    case.kubernetes.changed().await;
}

#[tokio::test]
async fn istiods_address_comes_from_the_configuration_or_a_service_or_is_asked_for() {
    let given = Case::with(Cluster::new(), "ingress = \"localhost\"", "").await;
    let hosts = given.kubernetes.bundle().await.unwrap().hosts;
    let local = hosts.iter().find(|entry| entry.ip.is_loopback() && entry.ip.is_ipv4());
    assert_eq!(local.unwrap().names, ["istiod.istio-system.svc"], "{hosts:?}");
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
    assert_eq!(addressed.kubernetes.bundle().await.unwrap().hosts, []);
}

/// Of the injector, which has Istio's name of the cluster.
const INJECTOR: &str = "/api/v1/namespaces/istio-system/configmaps/istio-sidecar-injector";

#[tokio::test]
async fn cluster_id_that_is_written_as_told_is_istios() {
    let cluster = Cluster::new();
    let values = r#"{"global": {"multiCluster": {"clusterName": "cluster1"}}}"#;
    cluster.set(INJECTOR, 200, json!({"metadata": {}, "data": {"values": values}}));
    let problem = async |keys: &str| {
        let case = Case::with(cluster.clone(), keys, "[network]\naddress = \"10.0.0.3\"\n").await;
        let join = Join::open(&case.config, &Host::new(case.directory.path(), System)).unwrap();
        join.cluster_id_problem(&join.fetch().await.unwrap()).await.unwrap()
    };
    let (told, fix) = problem("").await.unwrap();
    assert!(
        told.contains("\"Kubernetes\", and Istio calls the cluster \"cluster1\""),
        "{told}"
    );
    let written = fix.strip_prefix("write join.kubernetes.").unwrap();
    assert_eq!(problem(written).await, None);
}
