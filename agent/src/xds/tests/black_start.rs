//! Starts while no istiod answers.

use std::time::{Duration, SystemTime};

use istio_api::frame::Frame;

use super::*;
use crate::xds::snapshot::document::Snapshot;

const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";
const DELTA: XdsProtocol = XdsProtocol::Delta;

/// Clusters, a listener and the name table of an Envoy before.
fn kept() -> Snapshot {
    let one = |name: &str| (name.to_owned(), resource(name, "7", b"as it came"));
    let table = names(DELTA, "").resources().unwrap();
    Snapshot(
        [
            (CLUSTER.to_owned(), [one("a"), one("b")].into()),
            (LISTENER.to_owned(), [one("virtualInbound")].into()),
            (NAME_TABLE.to_owned(), table.into_iter().collect()),
        ]
        .into(),
    )
}

async fn black_start() -> Mesh {
    Mesh::starting_black(|file, membership| file.save(membership, &kept()).unwrap()).await
}

/// Names of the resources that Envoy is sent next, and the nonce.
async fn sent(envoy: &mut Stream, type_url: &str) -> (Vec<String>, String) {
    let frame = envoy.next().await;
    let head = frame.response().unwrap();
    assert_eq!(head.type_url, type_url);
    let names = frame
        .changes()
        .unwrap()
        .resources
        .into_iter()
        .map(|resource| resource.name);
    (names.collect(), head.nonce)
}

fn versions(request: &AnyRequest) -> Vec<(&str, &str)> {
    let mut versions: Vec<_> = request
        .versions
        .iter()
        .map(|(name, version)| (&**name, &**version))
        .collect();
    versions.sort_unstable();
    versions
}

#[tokio::test]
async fn envoy_is_served_from_the_snapshot_until_istiod_is_told_what_it_has() {
    let mut mesh = black_start().await;
    soon(mesh.names.wait_for(Option::is_some)).await.unwrap();
    assert!(!mesh.state.borrow().envoy_connected, "names need no Envoy");
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    let (clusters, nonce) = sent(&mut envoy, CLUSTER).await;
    assert_eq!(clusters, ["a", "b"]);
    envoy.send(&request(DELTA, CLUSTER, &nonce, None)).await;
    envoy.send(&request(DELTA, LISTENER, "", None)).await;
    assert_eq!(sent(&mut envoy, LISTENER).await.0, ["virtualInbound"]);
    let state = mesh.until(|state| state.snapshot.is_some()).await;
    assert!(state.connected_to.is_none() && state.last_error.is_some());
    assert_eq!((state.names, state.snapshot_problem), (Some(1), None));

    mesh.start_istiod().await;
    let mut istiod = mesh.accepted().await;
    let clusters = next_request(&mut istiod).await;
    assert!(clusters.node.is_some() && clusters.response_nonce.is_empty());
    assert_eq!(versions(&clusters), [("a", "7"), ("b", "7")]);
    let listeners = next_request(&mut istiod).await;
    // Envoy has not said yet what it thinks of it.
    assert_eq!(versions(&listeners), [("virtualInbound", "")]);
    assert_eq!(next_request(&mut istiod).await.type_url, NAME_TABLE);
    let difference = response(CLUSTER, "1", b"difference");
    istiod.send(&difference).await;
    assert_eq!(envoy.next().await, difference);
    let state = mesh.until(|state| state.connected_to.is_some()).await;
    assert_eq!((state.snapshot, state.envoy_connected), (None, true));
}

#[tokio::test]
async fn istiod_that_is_well_is_not_forestalled_by_the_snapshot() {
    let mut mesh = black_start().await;
    mesh.start_istiod().await;
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    let mut istiod = mesh.accepted().await;
    assert_eq!(versions(&next_request(&mut istiod).await), []);
    let answer = response(CLUSTER, "1", b"");
    istiod.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
    assert_eq!(mesh.state.borrow().snapshot, None);
}

#[tokio::test]
async fn istiod_that_took_the_call_and_says_nothing_is_asked_anew_with_what_the_snapshot_gave() {
    let mut mesh = black_start().await;
    mesh.start_istiod().await;
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    let mut slow = mesh.accepted().await;
    assert_eq!(versions(&next_request(&mut slow).await), []);
    assert_eq!(sent(&mut envoy, CLUSTER).await.0, ["a", "b"]);
    slow.end().await;
    let mut istiod = mesh.accepted().await;
    assert_eq!(versions(&next_request(&mut istiod).await), [("a", ""), ("b", "")]);
}

#[tokio::test]
async fn istiod_that_goes_halfway_is_completed_by_the_snapshot() {
    let mut mesh = black_start().await;
    mesh.start_istiod().await;
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    let istiod = mesh.accepted().await;
    let newer = Frame::of_resources(CLUSTER, "1", vec![resource("a", "8", b"newer")], Vec::new());
    istiod.send(&newer).await;
    assert_eq!(envoy.next().await, newer);
    envoy.send(&request(DELTA, CLUSTER, "1", None)).await;
    drop(istiod);
    // It takes calls and gives no answer from here on.
    assert_eq!(sent(&mut envoy, CLUSTER).await.0, ["b"], "what Envoy has is newer");
    envoy.send(&request(DELTA, LISTENER, "", None)).await;
    assert_eq!(sent(&mut envoy, LISTENER).await.0, ["virtualInbound"]);
}

#[tokio::test]
async fn envoy_that_has_a_configuration_is_sent_none_from_the_snapshot() {
    let mut mesh = black_start().await;
    let mut envoy = mesh.envoy(DELTA).await;
    let resumed = AnyRequest {
        node: Some(Bytes::from_static(b"\x0a\x02vm")),
        type_url: CLUSTER.to_owned(),
        versions: [("a".to_owned(), "9".to_owned())].into(),
        ..AnyRequest::default()
    };
    envoy.send(&Frame::of_request(DELTA, resumed)).await;
    mesh.until(|state| state.last_error.is_some()).await;
    mesh.start_istiod().await;
    let mut istiod = mesh.accepted().await;
    assert_eq!(versions(&next_request(&mut istiod).await), [("a", "9")]);
    let answer = response(CLUSTER, "1", b"");
    istiod.send(&answer).await;
    assert_eq!(envoy.next().await, answer, "it was sent something else before");
}

#[tokio::test]
async fn snapshot_is_not_served_without_a_valid_certificate() {
    let mut mesh = black_start().await;
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let expired = issued_by(&mesh.world.ca, now - hour * 2, now - hour);
    mesh.credentials.send_replace(Some(Arc::new(expired)));
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    mesh.until(|state| state.last_error.is_some()).await;
    mesh.start_istiod().await;
    let istiod = mesh.accepted().await;
    let answer = response(CLUSTER, "1", b"");
    istiod.send(&answer).await;
    assert_eq!(envoy.next().await, answer, "it was sent something else before");
}

#[tokio::test]
async fn snapshot_that_is_damaged_is_named_and_not_served() {
    let mut mesh = Mesh::starting_black(|file, membership| {
        file.save(membership, &kept()).unwrap();
        let mut bytes = std::fs::read(file.host.real_path(&file.path)).unwrap();
        bytes.pop();
        file.host.write_bytes(&file.path, &bytes, 0o600).unwrap();
    })
    .await;
    let state = mesh.until(|state| state.snapshot_problem.is_some()).await;
    let problem = state.snapshot_problem.unwrap();
    assert!(
        problem.starts_with("/xds.snapshot is not used") && problem.contains("damaged"),
        "{problem}"
    );
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    mesh.until(|state| state.last_error.is_some()).await;
    mesh.start_istiod().await;
    let istiod = mesh.accepted().await;
    let answer = response(CLUSTER, "1", b"");
    istiod.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
    assert_eq!(
        (mesh.state.borrow().snapshot.clone(), mesh.names.borrow().clone()),
        (None, None)
    );
}

#[tokio::test]
async fn snapshot_has_what_envoy_accepts_and_not_what_it_refuses() {
    let mut mesh = Mesh::new().await;
    mesh.proxy.send_replace(serving(1));
    let (mut envoy, mut istiod) = conversation(&mut mesh, DELTA).await;
    istiod.send(&names(DELTA, "n1")).await;
    next_request(&mut istiod).await;
    let clusters =
        |nonce: &str, name: &str| Frame::of_resources(CLUSTER, nonce, vec![resource(name, nonce, b"x")], Vec::new());
    let endpoints = Frame::of_resources(ENDPOINTS, "3", vec![resource("a", "1", b"x")], Vec::new());
    for type_url in [CLUSTER, ENDPOINTS] {
        envoy.send(&request(DELTA, type_url, "", None)).await;
        next_request(&mut istiod).await;
    }
    for (answer, type_url, nonce, refused) in [
        (clusters("1", "good"), CLUSTER, "1", None),
        (clusters("2", "bad"), CLUSTER, "2", Some("no")),
        (endpoints, ENDPOINTS, "3", None),
    ] {
        istiod.send(&answer).await;
        envoy.next().await;
        envoy.send(&request(DELTA, type_url, nonce, refused)).await;
        assert_eq!(next_request(&mut istiod).await.response_nonce, nonce);
    }
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(5)).await;
    tokio::time::resume();
    let (file, membership) = (mesh.world.snapshot(), mesh.membership.borrow().clone());
    let snapshot = soon(async {
        loop {
            match file.load(&membership).unwrap() {
                Some(snapshot) => break snapshot,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    let names = |type_url: &str| {
        snapshot
            .0
            .get(type_url)
            .map(|of_type| of_type.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(names(CLUSTER), Some(vec!["good".to_owned()]));
    assert_eq!(names(ENDPOINTS), Some(vec!["a".to_owned()]));
    assert!(names(NAME_TABLE).is_some() && names(LISTENER).is_none(), "{snapshot:?}");
    assert_eq!(snapshot.0[CLUSTER]["good"], resource("good", "1", b"x"), "as it came");
}

fn serving(pid: u32) -> EnvoyState {
    EnvoyState::Ready {
        pid,
        adopted: false,
        restarts: 0,
        successor: None,
    }
}

/// An agent whose Envoy was ready with the cluster `a` of istiod's, and has died since.
async fn after_a_death() -> Mesh {
    let mut mesh = Mesh::new().await;
    mesh.proxy.send_replace(serving(1));
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    let mut istiod = mesh.accepted().await;
    let clusters = Frame::of_resources(CLUSTER, "1", vec![resource("a", "7", b"x")], Vec::new());
    istiod.send(&clusters).await;
    assert_eq!(envoy.next().await, clusters);
    envoy.send(&request(DELTA, CLUSTER, "1", None)).await;
    while next_request(&mut istiod).await.response_nonce != "1" {}
    drop(envoy);
    istiod.end().await;
    mesh
}

#[tokio::test]
async fn envoy_after_one_that_died_is_given_what_that_had_before_istiod_is_asked() {
    let mut mesh = after_a_death().await;
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    assert_eq!(sent(&mut envoy, CLUSTER).await.0, ["a"]);
    let mut istiod = mesh.accepted().await;
    let asked = next_request(&mut istiod).await;
    assert!(
        asked.versions.contains_key("a"),
        "it was asked before Envoy was given anything"
    );
    let difference = response(CLUSTER, "1", b"difference");
    istiod.send(&difference).await;
    assert_eq!(envoy.next().await, difference);
}

#[tokio::test]
async fn envoy_after_one_that_died_before_istiod_spoke_waits_for_istiod() {
    let mut mesh = after_a_death().await;
    let mut envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    assert_eq!(sent(&mut envoy, CLUSTER).await.0, ["a"]);
    drop(envoy);
    let envoy = mesh.envoy(DELTA).await;
    envoy.send(&request(DELTA, CLUSTER, "", None)).await;
    // There may have been a stream for the one before, on which istiod is told what that was given.
    loop {
        let mut stream = mesh.accepted().await;
        let first = soon(stream.incoming.message()).await;
        if let Ok(Some(first)) = first
            && first.request(DELTA).unwrap().versions.is_empty()
        {
            break;
        }
    }
}

#[tokio::test]
async fn envoy_of_another_node_is_not_given_what_the_one_before_had() {
    let mut mesh = after_a_death().await;
    let envoy = mesh.envoy(DELTA).await;
    let other = AnyRequest {
        node: Some(Bytes::from_static(b"\x0a\x02vm")),
        type_url: CLUSTER.to_owned(),
        ..AnyRequest::default()
    };
    envoy.send(&Frame::of_request(DELTA, other)).await;
    let mut istiod = mesh.accepted().await;
    assert_eq!(versions(&next_request(&mut istiod).await), []);
}
