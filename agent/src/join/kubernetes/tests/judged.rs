//! Values that the objects of a cluster may not have are refused with the object, the field in it and what to do, in
//! the same words whoever asks, and with nothing touched; what stands beside it is taken.

use serde_json::Value;
use tokio::sync::watch;

use super::*;
use crate::config::tests::judged::rows;
use crate::host::System;
use crate::join::Join;
use crate::join::tests::judged::tree;

const REFUSED: &str = include_str!("refused.txt");
/// Inputs, at the least.
const LEAST: usize = 60;
const PROXY_CONFIG: &str = "proxy.istio.io/config";

/// The cluster's objects with the edit of a row.
fn edit(cluster: &Cluster, input: &str) {
    let (object, edit) = input.split_once(' ').expect(input);
    let put = |path: &str, pointer: &str, value: Value| {
        let (_, mut document) = cluster.answers.lock().unwrap()[path].clone();
        let (parent, key) = pointer.rsplit_once('/').expect(input);
        document.pointer_mut(parent).expect(input)[key.replace("~1", "/")] = value;
        cluster.set(path, 200, document);
    };
    let annotations = "/spec/metadata/annotations";
    match object {
        "group" => {
            let (pointer, json) = edit.split_once(' ').expect(input);
            put(GROUP, pointer, serde_json::from_str(json).expect(input));
        }
        "proxy" => put(GROUP, annotations, json!({ PROXY_CONFIG: edit })),
        "traffic" => {
            let (name, value) = edit.split_once(' ').expect(input);
            put(
                GROUP,
                annotations,
                json!({ format!("traffic.sidecar.istio.io/{name}"): value }),
            );
        }
        "mesh" => put(MESH, "/data/mesh", json!(edit)),
        "roots" => put(ROOTS_PATH, "/data/root-cert.pem", json!(edit)),
        other => panic!("{other}"),
    }
}

/// The error of a refresh of the membership, and of a start that waits for one; `None` where they take it.
async fn verdict(case: &Case, join: &Join) -> Option<String> {
    let root = case.directory.path();
    let before = tree(root);
    let error = format!("{:#}", join.fetch().await.err()?);
    let problem = watch::Sender::new(None);
    let mut told = problem.subscribe();
    tokio::select! {
        taken = join.first(&problem) => panic!("a start takes it: {taken:?}"),
        told = told.wait_for(Option::is_some) => assert_eq!(told.unwrap().as_deref(), Some(error.as_str())),
    }
    assert_eq!(tree(root), before, "something was touched");
    Some(error)
}

fn join(case: &Case) -> Join {
    Join::open(&case.config, &Host::new(case.directory.path(), System)).unwrap()
}

#[tokio::test]
async fn objects_of_a_cluster_are_refused_with_the_object_and_the_field() {
    let (mut wrong, rows) = (Vec::new(), rows(REFUSED));
    assert!(rows.len() >= LEAST, "{} rows", rows.len());
    let case = Case::new().await;
    let join = join(&case);
    let good = case.cluster.answers.lock().unwrap().clone();
    for (input, begins, holds) in rows {
        edit(&case.cluster, &input);
        let said = verdict(&case, &join).await.unwrap_or_else(|| "it is taken".to_owned());
        case.cluster.answers.lock().unwrap().clone_from(&good);
        if !(said.starts_with(&begins) && said.contains(&holds)) {
            wrong.push(format!("{input:?}: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{} rows:\n{}", wrong.len(), wrong.join("\n"));
}

#[tokio::test]
async fn values_beside_refused_ones_are_taken() {
    let case = Case::new().await;
    let join = join(&case);
    for input in [
        r#"group /spec/template/ports {"grpc": 3550, "http": 65535}"#,
        "group /spec/template/ports null",
        r#"group /spec/probe {"tcpSocket": {"port": 3550}, "periodSeconds": 0}"#,
        "traffic includeInboundPorts *",
        "traffic excludeOutboundIPRanges 168.63.129.16",
        "proxy {drainDuration: 1m, interceptionMode: REDIRECT, proxyMetadata: {MINE: x}}",
        "proxy # nothing",
        "mesh ",
    ] {
        edit(&case.cluster, input);
        assert_eq!(verdict(&case, &join).await, None, "{input}");
    }
}

#[tokio::test]
async fn cluster_id_that_istio_does_not_know_is_told_with_its_own() {
    let case = Case::new().await;
    let join = join(&case);
    let membership = join.fetch().await.unwrap();
    let called = |name: &str| {
        let values = json!({"global": {"multiCluster": {"clusterName": name}}}).to_string();
        let object = json!({"metadata": {"name": "istio-sidecar-injector"}, "data": {"values": values}});
        let path = "/api/v1/namespaces/istio-system/configmaps/istio-sidecar-injector";
        case.cluster.set(path, 200, object);
    };
    called("Kubernetes");
    assert_eq!(join.cluster_id_problem(&membership).await.unwrap(), None);
    called("cluster1");
    let (problem, fix) = join.cluster_id_problem(&membership).await.unwrap().unwrap();
    assert!(problem.contains("\"cluster1\""), "{problem}");
    assert!(fix.contains("cluster_id = \"cluster1\""), "{fix}");
}
