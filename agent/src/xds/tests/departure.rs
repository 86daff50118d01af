use istio_api::frame::XdsProtocol;

use super::*;
use crate::facts::Departure;
use crate::xds::own_endpoints::CLUSTER_LOAD_ASSIGNMENT;

/// A cluster with a field of these bytes; `SocketAddress.address` is what counts in them.
fn assignment(nonce: &str, content: &[u8]) -> Frame {
    let mut value = Vec::new();
    prost::encoding::bytes::encode(3, &content.to_vec(), &mut value);
    Frame::of(&DeltaDiscoveryResponse {
        type_url: CLUSTER_LOAD_ASSIGNMENT.to_owned(),
        nonce: nonce.to_owned(),
        resources: vec![Resource {
            name: "catalog".to_owned(),
            resource: Some(rpc::Any {
                type_url: CLUSTER_LOAD_ASSIGNMENT.to_owned(),
                value: value.into(),
            }),
            ..Resource::default()
        }],
        ..DeltaDiscoveryResponse::default()
    })
}

/// A request for endpoints of some clusters more, and some less.
fn endpoints(names: &[&str], unsubscribe: &[&str]) -> Frame {
    let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    let request = AnyRequest {
        type_url: CLUSTER_LOAD_ASSIGNMENT.to_owned(),
        names: owned(names),
        unsubscribe: owned(unsubscribe),
        ..AnyRequest::default()
    };
    Frame::of_request(XdsProtocol::Delta, request)
}

#[tokio::test]
async fn clusters_that_call_the_vm_are_followed() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    envoy.send(&endpoints(&["catalog"], &[])).await;
    next_request(&mut istiod).await;
    let address = mesh.membership.borrow().instance_ips[0].to_string();
    let length = u8::try_from(address.len()).unwrap();
    let own = [&[0x12, length], address.as_bytes()].concat();
    istiod.send(&assignment("1", &own)).await;
    let state = mesh.until(|state| !state.listed_in.is_empty()).await;
    assert!(state.listed_in.contains("catalog"), "{state:?}");
    envoy.next().await;
    istiod.send(&assignment("2", b"")).await;
    mesh.until(|state| state.listed_in.is_empty()).await;
}

#[tokio::test]
async fn cluster_whose_endpoints_envoy_no_longer_asks_for_is_forgotten() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    let address = mesh.membership.borrow().instance_ips[0].to_string();
    let own = [&[0x12, u8::try_from(address.len()).unwrap()], address.as_bytes()].concat();
    envoy.send(&endpoints(&["catalog", "cart"], &[])).await;
    next_request(&mut istiod).await;
    istiod.send(&assignment("1", &own)).await;
    mesh.until(|state| state.listed_in.contains("catalog")).await;
    envoy.next().await;
    envoy.send(&endpoints(&[], &["catalog"])).await;
    mesh.until(|state| state.listed_in.is_empty()).await;

    // On its way while Envoy unsubscribed.
    next_request(&mut istiod).await;
    istiod.send(&assignment("2", &own)).await;
    envoy.next().await;
    assert!(mesh.state.borrow().listed_in.is_empty());

    envoy.send(&endpoints(&["catalog"], &[])).await;
    next_request(&mut istiod).await;
    istiod.send(&assignment("3", &own)).await;
    mesh.until(|state| state.listed_in.contains("catalog")).await;
    // Another Envoy, of whose clusters it is none.
    let another = mesh.envoy(XdsProtocol::Delta).await;
    another.send(&endpoints(&["cart"], &[])).await;
    mesh.until(|state| state.listed_in.is_empty()).await;
}

#[tokio::test]
async fn vm_that_hangs_up_leaves_envoy_a_silent_stream_and_istiod_none() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    mesh.departure.send_replace(Departure::HungUp);
    istiod.end().await;
    let state = mesh
        .until(|state| !state.envoy_connected && state.connected_to.is_none())
        .await;
    let error = state.last_error.unwrap();
    assert!(error.ends_with("the VM is leaving the mesh"), "{error}");
    // For good: istiod would register the VM again.
    mesh.departure.send_replace(Departure::Propagating);
    let again = mesh.envoy(XdsProtocol::Delta).await;
    again.send(&request(XdsProtocol::Delta, LISTENER, "", None)).await;
    envoy.end().await;
    assert!(!mesh.state.borrow().envoy_connected);
    assert!(mesh.no_stream(), "istiod has a stream again");
}
