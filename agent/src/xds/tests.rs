mod black_start;
mod departure;
mod mesh;
mod moves;
mod own_stream;
mod standby;

use istio_api::ads::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, HEALTH_INFORMATION, Node, Resource,
};
use istio_api::frame::{AnyRequest, Frame, XdsProtocol};
use istio_api::nds::NAME_TABLE;
use istio_api::rpc;
use tonic::{Code, Status};

use super::*;
use crate::control_plane::fixtures::{ISTIOD, issued_by};
use mesh::{Mesh, Stream, soon};

const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
const PROTOCOLS: [XdsProtocol; 2] = [XdsProtocol::Delta, XdsProtocol::Sotw];
/// Field 99, which no discovery message has: it must come through.
const UNKNOWN_FIELD: &[u8] = b"\x9a\x06\x03new";

fn with_unknown_field(frame: &Frame) -> Frame {
    Frame([&frame.0[..], UNKNOWN_FIELD].concat().into())
}

/// A resource of delta xDS, with a field that nobody knows.
pub(super) fn resource(name: &str, version: &str, value: &[u8]) -> Bytes {
    let resource = Resource {
        name: name.to_owned(),
        version: version.to_owned(),
        resource: Some(rpc::Any {
            type_url: "type.googleapis.com/x".to_owned(),
            value: value.to_vec().into(),
        }),
    };
    with_unknown_field(&Frame::of(&resource)).0
}

fn request(protocol: XdsProtocol, type_url: &str, nonce: &str, error: Option<&str>) -> Frame {
    let node = Some(Node {
        id: "sidecar~10.0.0.1~vm.shop~shop.svc.cluster.local".to_owned(),
        ..Default::default()
    });
    let (type_url, response_nonce) = (type_url.to_owned(), nonce.to_owned());
    let error_detail = error.map(|message| rpc::Status {
        message: message.to_owned(),
        ..Default::default()
    });
    with_unknown_field(&match protocol {
        XdsProtocol::Delta => Frame::of(&DeltaDiscoveryRequest {
            node,
            type_url,
            response_nonce,
            error_detail,
            ..Default::default()
        }),
        XdsProtocol::Sotw => Frame::of(&DiscoveryRequest {
            node,
            type_url,
            response_nonce,
            error_detail,
            ..Default::default()
        }),
    })
}

fn response(type_url: &str, nonce: &str, name: &[u8]) -> Frame {
    let mut value = Vec::new();
    prost::encoding::bytes::encode(1, &name.to_vec(), &mut value);
    response_with(type_url, nonce, value)
}

/// A response whose one resource is these bytes.
fn response_with(type_url: &str, nonce: &str, value: Vec<u8>) -> Frame {
    with_unknown_field(&Frame::of(&DeltaDiscoveryResponse {
        system_version_info: format!("v{nonce}"),
        type_url: type_url.to_owned(),
        nonce: nonce.to_owned(),
        resources: vec![Resource {
            resource: Some(rpc::Any {
                type_url: type_url.to_owned(),
                value: value.into(),
            }),
            ..Default::default()
        }],
        ..Default::default()
    }))
}

/// The table of one host, in either form.
fn names(protocol: XdsProtocol, nonce: &str) -> Frame {
    use istio_api::nds::{NameTable, name_table::NameInfo};
    let info = NameInfo {
        ips: vec!["10.96.0.1".to_owned()],
        ..Default::default()
    };
    let table = NameTable {
        table: [("shop.example".to_owned(), info)].into(),
    };
    let value = prost::Message::encode_to_vec(&table);
    match protocol {
        XdsProtocol::Delta => response_with(NAME_TABLE, nonce, value),
        XdsProtocol::Sotw => Frame::of(&istio_api::ads::DiscoveryResponse {
            version_info: format!("v{nonce}"),
            type_url: NAME_TABLE.to_owned(),
            nonce: nonce.to_owned(),
            resources: vec![rpc::Any {
                type_url: NAME_TABLE.to_owned(),
                value: value.into(),
            }],
            control_plane: None,
        }),
    }
}

async fn next_request(istiod: &mut Stream) -> AnyRequest {
    let frame = istiod.next().await;
    frame.request(istiod.protocol).unwrap()
}

/// A stream on which istiod has answered Envoy's first request for listeners.
async fn conversation(mesh: &mut Mesh, protocol: XdsProtocol) -> (Stream, Stream) {
    let mut envoy = mesh.envoy(protocol).await;
    envoy.send(&request(protocol, LISTENER, "", None)).await;
    let mut istiod = mesh.accepted().await;
    assert_eq!(next_request(&mut istiod).await.type_url, LISTENER);
    assert_eq!(next_request(&mut istiod).await.type_url, NAME_TABLE);
    istiod.send(&response(LISTENER, "1", b"listener")).await;
    envoy.next().await;
    (envoy, istiod)
}

#[tokio::test]
async fn bytes_pass_both_ways_as_they_came() {
    for protocol in PROTOCOLS {
        let mut mesh = Mesh::new().await;
        let mut envoy = mesh.envoy(protocol).await;
        let ask = request(protocol, CLUSTER, "", None);
        envoy.send(&ask).await;
        let mut istiod = mesh.accepted().await;
        assert_eq!(istiod.protocol, protocol);
        assert_eq!(istiod.metadata.get("clusterid").unwrap(), "Kubernetes");
        assert_eq!(istiod.next().await, ask);
        // A type that nobody here has heard of is Envoy's to judge as well.
        for type_url in [CLUSTER, "type.googleapis.com/of.the.Future"] {
            let answer = response(type_url, "1", &vec![7; 5 << 20]);
            istiod.send(&answer).await;
            assert_eq!(envoy.next().await, answer);
        }
        let state = mesh.until(|state| state.connected_to.is_some()).await;
        assert!(
            state.envoy_connected && state.last_error.is_none() && state.since.is_some(),
            "{state:?}"
        );
        assert!(state.connected_to.unwrap().ends_with(" (127.0.0.1)"));
    }
}

/// A ServiceEntry of any namespace may have `unix:///…/sds.sock` for an endpoint.
#[tokio::test]
async fn envoy_is_led_to_no_unix_socket_that_is_not_listed() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    // Cluster.dns_resolvers, of which each is an Address.
    let endpoint = |path: &[u8; 9]| [b"\x92\x01\x0d\x12\x0b\x0a\x09", &path[..]].concat();
    istiod.send(&response_with(CLUSTER, "2", endpoint(b"/sds.sock"))).await;
    assert_eq!(envoy.next().await, response_with(CLUSTER, "2", endpoint(b"/////////")));
}

#[tokio::test]
async fn name_table_is_asked_for_published_and_accepted() {
    for protocol in PROTOCOLS {
        let mut mesh = Mesh::new().await;
        let (_envoy, mut istiod) = conversation(&mut mesh, protocol).await;
        istiod.send(&names(protocol, "n1")).await;
        let answer = next_request(&mut istiod).await;
        assert_eq!(
            (answer.type_url.as_str(), answer.response_nonce.as_str()),
            (NAME_TABLE, "n1")
        );
        assert_eq!(answer.error_detail, None);
        let table = mesh.names.borrow().clone().unwrap();
        assert!(table.names.contains_key("shop.example"), "{table:?}");
        assert_eq!(mesh.state.borrow().names, Some(1));
    }
}

#[tokio::test]
async fn name_table_that_is_bad_is_refused_and_the_last_good_one_stays() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    istiod.send(&names(XdsProtocol::Delta, "n1")).await;
    next_request(&mut istiod).await;
    istiod
        .send(&response_with(NAME_TABLE, "n2", b"\xff\xff".to_vec()))
        .await;
    let answer = next_request(&mut istiod).await;
    assert_eq!(answer.response_nonce, "n2");
    let error = answer.error_detail.unwrap();
    assert!(error.code == i32::from(Code::Internal) && error.message.starts_with("the resource is no name table"));
    assert_eq!(mesh.names.borrow().as_ref().unwrap().names.len(), 1);
    // The stream goes on, and Envoy saw nothing of it.
    let listeners = response(LISTENER, "2", b"");
    istiod.send(&listeners).await;
    assert_eq!(envoy.next().await, listeners);
}

#[tokio::test]
async fn health_is_told_on_each_change_and_again_on_a_new_stream() {
    let mut mesh = Mesh::new().await;
    let (envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    let unhealthy = |reason: &str| ProbeState::Unhealthy {
        reason: reason.to_owned(),
    };
    mesh.probe.send_replace(ProbeState::Unknown);
    mesh.probe.send_replace(unhealthy("refused"));
    let told = next_request(&mut istiod).await;
    assert_eq!(told.type_url, HEALTH_INFORMATION);
    assert_eq!(told.error_detail.unwrap().message, "refused");
    mesh.probe.send_replace(unhealthy("another reason, no news"));
    // Had it been told, it would come between these.
    for _ in 0..8 {
        envoy.send(&request(XdsProtocol::Delta, CLUSTER, "", None)).await;
        assert_eq!(next_request(&mut istiod).await.type_url, CLUSTER);
    }
    mesh.probe.send_replace(ProbeState::Healthy);
    let told = next_request(&mut istiod).await;
    assert_eq!((told.type_url.as_str(), told.error_detail), (HEALTH_INFORMATION, None));
    drop((envoy, istiod));

    let (_envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Sotw).await;
    let told = next_request(&mut istiod).await;
    assert_eq!((told.type_url.as_str(), told.error_detail), (HEALTH_INFORMATION, None));
}

#[tokio::test]
async fn agents_requests_never_precede_envoys_first() {
    let mut mesh = Mesh::new().await;
    mesh.probe.send_replace(ProbeState::Healthy);
    let envoy = mesh.envoy(XdsProtocol::Delta).await;
    let mut istiod = mesh.accepted().await;
    envoy.send(&request(XdsProtocol::Delta, CLUSTER, "", None)).await;
    envoy.send(&request(XdsProtocol::Delta, LISTENER, "", None)).await;
    for expected in [CLUSTER, LISTENER, NAME_TABLE, HEALTH_INFORMATION] {
        assert_eq!(next_request(&mut istiod).await.type_url, expected);
    }
}

#[tokio::test]
async fn envoy_waits_while_istiod_is_away_and_its_requests_are_kept() {
    let mut mesh = Mesh::without_istiod().await;
    let mut envoy = mesh.envoy(XdsProtocol::Delta).await;
    let ask = request(XdsProtocol::Delta, CLUSTER, "", None);
    envoy.send(&ask).await;
    let state = mesh.until(|state| state.last_error.is_some()).await;
    assert!(state.envoy_connected && state.connected_to.is_none());
    assert!(state.last_error.unwrap().contains("nothing listens there"));
    mesh.start_istiod().await;

    // A first istiod takes the request and ends without an answer: Envoy needn't know.
    let mut istiod = mesh.accepted().await;
    assert_eq!(
        next_request(&mut istiod).await,
        ask.request(XdsProtocol::Delta).unwrap()
    );
    istiod
        .outgoing
        .send(Err(Status::unavailable("shutting down")))
        .await
        .unwrap();
    let mut istiod = mesh.accepted().await;
    let again = next_request(&mut istiod).await;
    assert_eq!(again, ask.request(XdsProtocol::Delta).unwrap());
    let answer = response(CLUSTER, "1", b"");
    istiod.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
}

#[tokio::test]
async fn envoys_requests_are_read_while_the_first_certificate_is_awaited() {
    let mut mesh = Mesh::new().await;
    let certificate = mesh.credentials.send_replace(None);
    let mut envoy = mesh.envoy(XdsProtocol::Delta).await;
    envoy.send(&Frame(b"\xff".as_slice().into())).await;
    assert_eq!(envoy.end().await.code(), Code::InvalidArgument);
    let envoy = mesh.envoy(XdsProtocol::Delta).await;
    envoy.send(&request(XdsProtocol::Delta, LISTENER, "", None)).await;
    mesh.until(|state| state.envoy_connected).await;
    mesh.credentials.send_replace(certificate);
    let mut istiod = mesh.accepted().await;
    assert!(
        istiod.certificate.is_some(),
        "a token is asked for before the certificate is there"
    );
    assert_eq!(next_request(&mut istiod).await.type_url, LISTENER);
}

#[tokio::test]
async fn next_control_plane_is_asked_when_the_first_is_away() {
    let mut mesh = Mesh::with_addresses(|port| vec![format!("{ISTIOD}:1"), format!("{ISTIOD}:{port}")]).await;
    mesh.start_istiod().await;
    conversation(&mut mesh, XdsProtocol::Delta).await;
    let state = mesh.until(|state| state.connected_to.is_some()).await;
    assert_eq!(state.connected_to, Some(format!("{ISTIOD}:{} (127.0.0.1)", mesh.port)));
}

#[tokio::test]
async fn reading_from_istiod_never_waits_for_writing_to_it() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    // More than all buffers hold, and istiod reads none of it until Envoy has its answers.
    let ask = Frame::of(&DeltaDiscoveryRequest {
        type_url: CLUSTER.to_owned(),
        resource_names_subscribe: vec!["n".repeat(1 << 20)],
        ..Default::default()
    });
    let requests = envoy.outgoing.clone();
    let asking = async {
        for _ in 0..32 {
            soon(requests.send(Ok(ask.clone()))).await.unwrap();
        }
    };
    let answering = async {
        for nonce in ["1", "2", "3", "4", "5", "6", "7", "8"] {
            istiod.send(&names(XdsProtocol::Delta, nonce)).await;
            let answer = response(LISTENER, nonce, b"");
            istiod.send(&answer).await;
            assert_eq!(envoy.next().await, answer);
        }
        let (mut asked, mut accepted) = (0, String::new());
        while asked < 32 || accepted != "8" {
            let head = next_request(&mut istiod).await;
            match head.type_url.as_str() {
                CLUSTER => asked += 1,
                _ => accepted = head.response_nonce,
            }
        }
    };
    tokio::join!(asking, answering);
}

#[tokio::test]
async fn istiods_stream_that_ends_is_opened_again_beneath_envoys() {
    for protocol in PROTOCOLS {
        let mut mesh = Mesh::new().await;
        let (mut envoy, istiod) = conversation(&mut mesh, protocol).await;
        drop(istiod);
        let mut istiod = mesh.accepted().await;
        let first = next_request(&mut istiod).await;
        assert_eq!((first.type_url.as_str(), first.response_nonce.as_str()), (LISTENER, ""));
        assert!(first.node.is_some(), "istiod doesn't know who asks");
        assert_eq!(next_request(&mut istiod).await.type_url, NAME_TABLE);
        let state = mesh.until(|state| state.connected_to.is_none()).await;
        assert!(state.envoy_connected);
        assert!(state.last_error.unwrap().ends_with("ended the stream"));
        let answer = response(LISTENER, "2", b"");
        istiod.send(&answer).await;
        assert_eq!(envoy.next().await, answer);
    }
}

#[tokio::test]
async fn envoys_second_stream_closes_the_first() {
    let mut mesh = Mesh::new().await;
    let (mut first, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    let (_second, _) = conversation(&mut mesh, XdsProtocol::Delta).await;
    assert_eq!(first.end().await.message(), "Envoy opened another stream");
    istiod.end().await;
    mesh.until(|state| state.envoy_connected && state.connected_to.is_some())
        .await;
}

#[tokio::test]
async fn nack_is_kept_until_envoy_accepts_that_type() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    envoy
        .send(&request(
            XdsProtocol::Delta,
            LISTENER,
            "1",
            Some("15006: unknown filter istio.stats"),
        ))
        .await;
    let state = mesh.until(|state| !state.nacks.is_empty()).await;
    assert_eq!(state.nacks.len(), 1);
    assert_eq!(state.nacks[0].kind, "Listener");
    assert_eq!(state.nacks[0].message, "15006: unknown filter istio.stats");
    assert!(next_request(&mut istiod).await.error_detail.is_some());
    for (kind, nonce) in [(CLUSTER, "2"), (LISTENER, "3")] {
        assert_eq!(mesh.state.borrow().nacks.len(), 1);
        istiod.send(&response(kind, nonce, b"")).await;
        envoy.next().await;
        envoy.send(&request(XdsProtocol::Delta, kind, nonce, None)).await;
        assert_eq!(next_request(&mut istiod).await.response_nonce, nonce);
    }
    mesh.until(|state| state.nacks.is_empty()).await;
}

#[tokio::test]
async fn new_certificate_leaves_the_running_stream_and_serves_the_next() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    let now = std::time::SystemTime::now();
    let day = Duration::from_secs(86_400);
    mesh.credentials
        .send_replace(Some(Arc::new(issued_by(&mesh.world.ca, now - day, now + day))));
    let answer = response(LISTENER, "2", b"");
    istiod.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
    let first = istiod.certificate;
    drop(envoy);
    let (_envoy, istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    assert!(first.is_some() && istiod.certificate.is_some() && istiod.certificate != first);
}

#[tokio::test]
async fn message_that_is_none_ends_the_stream_of_its_sender() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    istiod.send(&Frame(b"\xff".as_slice().into())).await;
    let state = mesh.until(|state| state.last_error.is_some()).await;
    assert!(state.last_error.unwrap().contains("no discovery response"));
    let mut istiod = mesh.accepted().await;
    assert_eq!(next_request(&mut istiod).await.type_url, LISTENER);
    envoy.send(&Frame(b"\xff".as_slice().into())).await;
    assert_eq!(envoy.end().await.code(), Code::InvalidArgument);
}
