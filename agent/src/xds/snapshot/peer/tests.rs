use super::*;
use crate::control_plane::fixtures::membership;
use crate::host::{Host, System};
use crate::xds::tests::resource;

fn kept() -> Snapshot {
    let named = |names: &[&str]| {
        let resources = names.iter().map(|name| ((*name).to_owned(), resource(name, "7", b"x")));
        resources.collect::<Resources>()
    };
    Snapshot(
        [
            ("cds".to_owned(), named(&["a", "b"])),
            ("eds".to_owned(), named(&["x", "y"])),
        ]
        .into(),
    )
}

fn peer() -> (tempfile::TempDir, SnapshotPeer) {
    let root = tempfile::tempdir().unwrap();
    let file = SnapshotFile {
        host: Host::new(root.path(), System),
        path: "/xds.snapshot".into(),
    };
    let membership = Arc::new(membership());
    file.save(&membership, &kept()).unwrap();
    (root, SnapshotPeer::new(file, membership, Vec::new()))
}

fn request(type_url: &str, names: &[&str]) -> AnyRequest {
    AnyRequest {
        type_url: type_url.to_owned(),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        ..AnyRequest::default()
    }
}

fn ask(peer: &mut SnapshotPeer, request: AnyRequest) {
    peer.send(Frame::of_request(XdsProtocol::Delta, request));
}

/// Type, names and removed names of the next answer.
async fn answer(peer: &mut SnapshotPeer) -> (String, Vec<String>, Vec<String>) {
    let frame = peer.next().await.unwrap();
    let changes = frame.changes().unwrap();
    let names = changes.resources.into_iter().map(|resource| resource.name);
    (frame.response().unwrap().type_url, names.collect(), changes.removed)
}

fn of(type_url: &str, names: &[&str], removed: &[&str]) -> (String, Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    (type_url.to_owned(), owned(names), owned(removed))
}

#[tokio::test]
async fn snapshot_answers_questions_in_order_and_nothing_else() {
    let (_root, mut peer) = peer();
    ask(&mut peer, request("cds", &[]));
    ask(&mut peer, request("eds", &["y", "gone"]));
    ask(&mut peer, request("lds", &["*"]));
    // An acknowledgement, the agent's own, and a secret.
    let accepted = AnyRequest {
        response_nonce: "snapshot-1".to_owned(),
        ..request("cds", &[])
    };
    for silent in [accepted, request(NAME_TABLE, &[]), request(HEALTH_INFORMATION, &[])] {
        ask(&mut peer, silent);
    }
    ask(&mut peer, request(super::super::SECRET, &["kubernetes://tls"]));
    ask(&mut peer, request("eds", &["x"]));
    assert_eq!(answer(&mut peer).await, of("cds", &["a", "b"], &[]));
    assert_eq!(answer(&mut peer).await, of("eds", &["y"], &["gone"]));
    assert_eq!(answer(&mut peer).await, of("lds", &[], &[]));
    assert_eq!(answer(&mut peer).await, of("eds", &["x"], &[]));
    assert!(peer.questions.is_empty());
}

#[tokio::test]
async fn snapshot_leaves_what_envoy_has_of_an_istiod() {
    let (_root, mut peer) = peer();
    let has = |type_url: &str, names: &[&str], held: &str| AnyRequest {
        versions: [(held.to_owned(), "8".to_owned())].into(),
        ..request(type_url, names)
    };
    ask(&mut peer, has("cds", &[], "a"));
    ask(&mut peer, has("eds", &["x", "y", "new"], "new"));
    assert_eq!(answer(&mut peer).await, of("cds", &["b"], &[]));
    assert_eq!(answer(&mut peer).await.2, [""; 0]);
}

#[tokio::test]
async fn snapshot_that_is_damaged_meanwhile_is_the_end() {
    let (root, mut peer) = peer();
    std::fs::write(root.path().join("xds.snapshot"), "{\"version\":1}\n").unwrap();
    ask(&mut peer, request("cds", &[]));
    let error = format!("{:#}", peer.next().await.unwrap_err().error);
    assert!(
        error.starts_with("/xds.snapshot is not used") && error.ends_with("it is cut short"),
        "{error}"
    );
}
