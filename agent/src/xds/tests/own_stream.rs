use bytes::Bytes;
use istio_api::frame::XdsProtocol;

use super::*;
use crate::facts::{Departure, EnvoyState, ProbeState};

const NODE: &[u8] = b"\x0a\x02vm";

/// An agent that takes over, and its own stream, on which it has said who asks.
async fn held_place() -> (Mesh, Stream) {
    let mut mesh = Mesh::taking_over(NODE).await;
    let mut own = mesh.accepted().await;
    let introduction = next_request(&mut own).await;
    assert_eq!(introduction.type_url, NAME_TABLE);
    assert_eq!(introduction.node, Some(Bytes::from_static(NODE)));
    (mesh, own)
}

#[tokio::test]
async fn place_is_held_until_envoy_s_stream_is_there() {
    let (mut mesh, mut own) = held_place().await;
    mesh.probe.send_replace(ProbeState::Healthy);
    assert_eq!(next_request(&mut own).await.type_url, HEALTH_INFORMATION);
    own.send(&response(NAME_TABLE, "1", b"")).await;
    let accepted = next_request(&mut own).await;
    assert_eq!((&*accepted.type_url, &*accepted.response_nonce), (NAME_TABLE, "1"));
    mesh.until(|state| !state.takes_over).await;

    let (_envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    own.end().await;
    assert_eq!(next_request(&mut istiod).await.type_url, HEALTH_INFORMATION);
    assert!(mesh.no_stream(), "its own stream is opened again");
}

#[tokio::test]
async fn place_is_held_again_by_the_next_agent_as_the_newest_envoy() {
    let (mut mesh, _own) = held_place().await;
    let _conversation = conversation(&mut mesh, XdsProtocol::Delta).await;
    let of_envoy = request(XdsProtocol::Delta, LISTENER, "", None);
    let node = of_envoy.request(XdsProtocol::Delta).unwrap().node.unwrap();
    let kept = async {
        while mesh.kept_node() != node {
            tokio::task::yield_now().await;
        }
    };
    soon(kept).await;
}

#[tokio::test]
async fn place_is_not_held_for_a_dead_envoy_nor_for_a_vm_that_leaves() {
    let (mesh, mut own) = held_place().await;
    mesh.proxy.send_replace(EnvoyState::Down {
        reason: "it ended".to_owned(),
    });
    own.end().await;

    let (mesh, mut own) = held_place().await;
    mesh.departure.send_replace(Departure::HungUp);
    own.end().await;
}

#[tokio::test]
async fn place_of_a_vm_that_leaves_is_held_by_no_agent_after_this_one() {
    let (mesh, _own) = held_place().await;
    assert_eq!(mesh.kept_node(), NODE);
    mesh.departure.send_replace(Departure::Announced);
    let forgotten = async {
        while !mesh.kept_node().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    soon(forgotten).await;
}

#[tokio::test]
async fn agent_that_takes_over_waits_for_istiod_and_not_for_long() {
    let mut mesh = Mesh::taking_over(NODE).await;
    mesh.until(|state| state.takes_over).await;
    // Nobody says a word on its stream.
    let _own = mesh.accepted().await;
    mesh.until(|state| !state.takes_over).await;
}
