//! Moves from one istiod to another, beneath Envoy's stream.

use std::net::IpAddr;

use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, Resource};
use tokio::net::TcpSocket;

use super::mesh::LOCAL;
use super::*;
use crate::control_plane::fixtures::WireState;
use crate::facts::{ControlPlaneHealth, HostEntry};

/// Envoy's request for these names, or its answer to this nonce.
fn names_request(protocol: XdsProtocol, names: &[&str], version: &str, nonce: &str) -> Frame {
    let names = names.iter().map(|&name| name.to_owned()).collect();
    let (type_url, response_nonce) = (CLUSTER.to_owned(), nonce.to_owned());
    match protocol {
        XdsProtocol::Delta => Frame::of(&DeltaDiscoveryRequest {
            type_url,
            response_nonce,
            resource_names_subscribe: names,
            ..Default::default()
        }),
        XdsProtocol::Sotw => Frame::of(&DiscoveryRequest {
            version_info: version.to_owned(),
            type_url,
            response_nonce,
            resource_names: names,
            ..Default::default()
        }),
    }
}

fn clusters(nonce: &str, resources: &[(&str, &str)], removed: &[&str]) -> Frame {
    let resource = |(name, version): &(&str, &str)| Resource {
        name: (*name).to_owned(),
        version: (*version).to_owned(),
        ..Default::default()
    };
    Frame::of(&DeltaDiscoveryResponse {
        type_url: CLUSTER.to_owned(),
        nonce: nonce.to_owned(),
        resources: resources.iter().map(resource).collect(),
        removed_resources: removed.iter().map(|&name| name.to_owned()).collect(),
        ..Default::default()
    })
}

/// Envoy and an istiod of this name that has answered it, and the name table's request.
async fn served(mesh: &mut Mesh, protocol: XdsProtocol, name: &str) -> (Stream, Stream) {
    let (envoy, istiod) = conversation(mesh, protocol).await;
    assert_eq!(istiod.istiod, name);
    (envoy, istiod)
}

/// The stream that the istiod of this name is asked for, and the first requests on it.
async fn moved_to(mesh: &mut Mesh, name: &str, requests: usize) -> (Stream, Vec<AnyRequest>) {
    let mut stream = mesh.accepted().await;
    assert_eq!(stream.istiod, name);
    let mut said = Vec::new();
    for _ in 0..requests {
        said.push(next_request(&mut stream).await);
    }
    (stream, said)
}

fn types(said: &[AnyRequest]) -> Vec<&str> {
    said.iter().map(|request| request.type_url.as_str()).collect()
}

#[tokio::test]
async fn second_istiod_is_told_what_envoy_wants_and_has_when_the_first_is_killed() {
    for protocol in PROTOCOLS {
        let (mut mesh, a, _b) = Mesh::of_two().await;
        mesh.probe.send_replace(ProbeState::Healthy);
        let (mut envoy, mut first) = served(&mut mesh, protocol, "a").await;
        assert_eq!(next_request(&mut first).await.type_url, HEALTH_INFORMATION);
        envoy.send(&names_request(protocol, &["x", "y"], "", "")).await;
        next_request(&mut first).await;
        first.send(&clusters("1", &[("x", "7"), ("y", "7")], &[])).await;
        envoy.next().await;
        envoy
            .send(&names_request(
                protocol,
                if protocol == XdsProtocol::Delta {
                    &[]
                } else {
                    &["x", "y"]
                },
                "v1",
                "1",
            ))
            .await;
        next_request(&mut first).await;
        first.send(&clusters("2", &[("x", "8")], &["y"])).await;
        envoy.next().await;

        a.state.send_replace(WireState::Cut);
        let (mut second, said) = moved_to(&mut mesh, "b", 4).await;
        assert_eq!(types(&said), [LISTENER, NAME_TABLE, HEALTH_INFORMATION, CLUSTER]);
        assert!(said[0].node.is_some() && said[3].node.is_none() && said[3].response_nonce.is_empty());
        assert_eq!(said[3].names, ["x", "y"]);
        let mut versions: Vec<_> = said[3]
            .versions
            .iter()
            .map(|(name, version)| (&**name, &**version))
            .collect();
        versions.sort_unstable();
        match protocol {
            // Envoy has not said yet what it thinks of the second response.
            XdsProtocol::Delta => assert_eq!(versions, [("x", ""), ("y", "7")]),
            XdsProtocol::Sotw => assert_eq!(said[3].version, "v1"),
        }
        // Its answer to it is none of the second istiod's business, but what it asks for beside is.
        let (nothing_new, new): (&[&str], &[&str]) = match protocol {
            XdsProtocol::Delta => (&[], &["z"]),
            XdsProtocol::Sotw => (&["x", "y"], &["x", "y", "z"]),
        };
        envoy.send(&names_request(protocol, nothing_new, "v2", "2")).await;
        envoy.send(&names_request(protocol, new, "v2", "2")).await;
        let asked = next_request(&mut second).await;
        assert_eq!((asked.names.len(), asked.response_nonce.as_str()), (new.len(), ""));
        let answer = clusters("1", &[("z", "1")], &[]);
        second.send(&answer).await;
        assert_eq!(envoy.next().await, answer);
        let state = mesh.until(|state| state.connected_to.is_some()).await;
        assert_eq!((state.envoy_connected, state.last_error), (true, None));
        let planes = mesh.selector.facts();
        assert!(
            matches!(planes.all[0].health, ControlPlaneHealth::Unreachable { .. }),
            "{planes:?}"
        );
        assert_eq!(planes.all[1].health, ControlPlaneHealth::Reachable);
        assert!(planes.reason.unwrap().contains(&planes.all[0].address));
    }
}

#[tokio::test]
async fn istiod_that_falls_silent_is_left() {
    let (mut mesh, a, _b) = Mesh::of_two().await;
    let (mut envoy, _first) = served(&mut mesh, XdsProtocol::Delta, "a").await;
    a.state.send_replace(WireState::Silent);
    let (second, _) = moved_to(&mut mesh, "b", 2).await;
    assert!(mesh.selector.facts().reason.unwrap().contains("is silent"));
    let answer = response(LISTENER, "2", b"");
    second.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
}

#[tokio::test]
async fn istiod_that_takes_connections_and_says_nothing_is_passed_over() {
    let (mut mesh, a, _b) = Mesh::of_two().await;
    a.state.send_replace(WireState::Silent);
    served(&mut mesh, XdsProtocol::Delta, "b").await;
    let reason = mesh.selector.facts().reason.unwrap();
    assert!(
        reason.ends_with("no answer within 3s: check routes and firewalls"),
        "{reason}"
    );
}

#[tokio::test]
async fn istiod_that_answers_no_stream_is_passed_over() {
    let (mut mesh, _a, _b) = Mesh::of_two().await;
    let envoy = mesh.envoy(XdsProtocol::Delta).await;
    envoy.send(&request(XdsProtocol::Delta, LISTENER, "", None)).await;
    // Its server is alive, and answers all but this.
    let _silent = moved_to(&mut mesh, "a", 2).await;
    moved_to(&mut mesh, "b", 2).await;
    let reason = mesh.selector.facts().reason.unwrap();
    assert!(reason.ends_with("took the call and gave no answer in time"), "{reason}");
}

#[tokio::test]
async fn istiod_that_nothing_reaches_is_passed_over() {
    // A full queue of connections: the kernel drops what comes.
    let full = TcpSocket::new_v4().unwrap();
    full.bind((LOCAL, 0).into()).unwrap();
    let full = full.listen(0).unwrap();
    let hole = full.local_addr().unwrap();
    let _queued = std::net::TcpStream::connect(hole).unwrap();

    let mut mesh =
        Mesh::with_addresses(|port| vec![format!("{ISTIOD}:{}", hole.port()), format!("{ISTIOD}:{port}")]).await;
    mesh.start_istiod().await;
    served(&mut mesh, XdsProtocol::Delta, "istiod").await;
    assert!(mesh.selector.facts().reason.unwrap().contains("no answer within 3s"));
}

#[tokio::test]
async fn failback_is_made_before_the_other_istiod_is_left() {
    for protocol in PROTOCOLS {
        let (mut mesh, a, _b) = Mesh::of_two().await;
        a.state.send_replace(WireState::Cut);
        let (mut envoy, mut second) = served(&mut mesh, protocol, "b").await;
        a.state.send_replace(WireState::Whole);
        let home = mesh.selector.facts().all[0].address.clone();
        mesh.selector.mark_reachable(&home);

        let (mut first, said) = moved_to(&mut mesh, "a", 2).await;
        assert_eq!(types(&said), [LISTENER, NAME_TABLE]);
        // Both hear what Envoy asks meanwhile, each in its own terms.
        envoy.send(&request(protocol, LISTENER, "1", None)).await;
        envoy.send(&names_request(protocol, &["x"], "", "")).await;
        assert_eq!(next_request(&mut second).await.response_nonce, "1");
        assert_eq!(next_request(&mut second).await.names, ["x"]);
        assert_eq!(next_request(&mut first).await.names, ["x"]);
        let state = mesh.state.borrow().clone();
        assert!(
            state
                .connected_to
                .unwrap()
                .contains(&mesh.selector.facts().all[1].address)
        );
        // What the old one says now, the new one would not know that Envoy has.
        second.send(&response(LISTENER, "2", b"old")).await;
        let answer = response(LISTENER, "1", b"new");
        first.send(&answer).await;
        assert_eq!(envoy.next().await, answer);
        second.end().await;
        let state = mesh
            .until(|state| state.connected_to.as_ref().unwrap().contains(&home))
            .await;
        assert!(state.envoy_connected && state.last_error.is_none());
        envoy.send(&request(protocol, LISTENER, "1", None)).await;
        assert_eq!(next_request(&mut first).await.response_nonce, "1");
    }
}

#[tokio::test]
async fn failback_that_fails_costs_nothing() {
    let (mut mesh, a, _b) = Mesh::of_two().await;
    a.state.send_replace(WireState::Cut);
    let (mut envoy, second) = served(&mut mesh, XdsProtocol::Delta, "b").await;
    a.state.send_replace(WireState::Whole);
    let planes = mesh.selector.facts();
    mesh.selector.mark_reachable(&planes.all[0].address);
    let (first, _) = moved_to(&mut mesh, "a", 2).await;
    first
        .outgoing
        .send(Err(Status::unavailable("not ready")))
        .await
        .unwrap();
    let answer = response(LISTENER, "2", b"");
    second.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
    assert_eq!(mesh.selector.current(), planes.all[1].address);
    let state = mesh.state.borrow().clone();
    assert_eq!(state.last_error, None);
}

#[tokio::test]
async fn stream_of_before_a_sleep_is_left_once_another_has_answered() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut old) = served(&mut mesh, XdsProtocol::Delta, "istiod").await;
    // A network that is another, and has the address still, is no reason.
    let address = ("lo".to_owned(), IpAddr::from(LOCAL));
    mesh.machine.send_modify(|host| host.interfaces.push(address));
    for nonce in ["2", "3", "4", "5"] {
        let answer = response(LISTENER, nonce, b"");
        old.send(&answer).await;
        assert_eq!(envoy.next().await, answer);
    }
    mesh.machine.send_modify(|host| host.resumes += 1);
    let (new, said) = moved_to(&mut mesh, "istiod", 2).await;
    assert_eq!(types(&said), [LISTENER, NAME_TABLE]);
    let answer = response(LISTENER, "9", b"");
    new.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
    old.end().await;
}

/// The VM has another address, and no longer the one that it had; returns who it was.
fn leave_address(mesh: &Mesh) -> Arc<Membership> {
    let (member, other) = (mesh.membership.borrow().clone(), IpAddr::from([10, 0, 0, 2]));
    mesh.membership.send_replace(Arc::new(Membership {
        instance_ips: vec![other],
        ..(*member).clone()
    }));
    // It has both addresses until the kernel says otherwise.
    mesh.machine
        .send_modify(|host| host.interfaces = vec![("eth1".to_owned(), other)]);
    member
}

#[tokio::test]
async fn vm_that_has_moved_is_unhealthy_where_it_was() {
    let mut mesh = Mesh::new().await;
    mesh.probe.send_replace(ProbeState::Healthy);
    let (_envoy, mut istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    assert_eq!(next_request(&mut istiod).await.error_detail, None);
    leave_address(&mesh);
    let told = next_request(&mut istiod).await;
    assert_eq!(told.type_url, HEALTH_INFORMATION);
    assert_eq!(told.error_detail.unwrap().message, "the VM has another address");
}

/// The stream by which istiod knew the VM at its former address may end later than it is told of the move: one that ends
/// before leaves that address in the mesh.
#[tokio::test]
async fn stream_that_tells_of_a_move_goes_on_until_the_dead_one_is_found() {
    let mut mesh = Mesh::new().await;
    let (envoy, istiod) = conversation(&mut mesh, XdsProtocol::Delta).await;
    let member = leave_address(&mesh);
    drop((envoy, istiod));
    let mut own = mesh.accepted().await;
    assert_eq!(next_request(&mut own).await.type_url, NAME_TABLE);
    let told = next_request(&mut own).await;
    assert_eq!(told.error_detail.unwrap().message, "the VM has another address");
    for nonce in ["1", "2"] {
        own.send(&response(NAME_TABLE, nonce, b"")).await;
        assert_eq!(next_request(&mut own).await.response_nonce, nonce);
    }
    assert!(super::super::own_stream::DEAD_STREAM_FOUND > Duration::from_secs(40));
    drop(own);
    let mut own = mesh.accepted().await;
    assert_eq!(next_request(&mut own).await.type_url, NAME_TABLE);
    assert_eq!(next_request(&mut own).await.type_url, HEALTH_INFORMATION);
    own.send(&response(NAME_TABLE, "1", b"")).await;
    assert_eq!(next_request(&mut own).await.response_nonce, "1");
    // It ends as soon as the VM is back.
    mesh.membership.send_replace(member);
    own.end().await;
}

#[tokio::test]
async fn stream_is_moved_only_when_its_address_is_gone() {
    let mut mesh = Mesh::new().await;
    let (mut envoy, mut old) = served(&mut mesh, XdsProtocol::Delta, "istiod").await;
    let elsewhere = [127, 0, 0, 2];
    mesh.world.serve("new", elsewhere, mesh.port).await;
    let known_at = |ips: &[[u8; 4]]| {
        let entry = |&ip: &[u8; 4]| HostEntry {
            ip: IpAddr::from(ip),
            names: vec![ISTIOD.to_owned()],
        };
        ips.iter().map(entry).collect::<Vec<_>>()
    };
    let member = mesh.membership.borrow().clone();
    // Another root, and another address beside it: no reason to move.
    mesh.membership.send_replace(Arc::new(Membership {
        roots_pem: format!(
            "{}{}",
            member.roots_pem,
            crate::control_plane::fixtures::Ca::new("next").root_pem()
        ),
        hosts: known_at(&[elsewhere, LOCAL]),
        ..(*member).clone()
    }));
    for nonce in ["2", "3", "4", "5"] {
        let answer = response(LISTENER, nonce, b"");
        old.send(&answer).await;
        assert_eq!(envoy.next().await, answer);
    }
    mesh.membership.send_replace(Arc::new(Membership {
        hosts: known_at(&[elsewhere]),
        ..(*member).clone()
    }));
    let (new, _) = moved_to(&mut mesh, "new", 2).await;
    let answer = response(LISTENER, "9", b"");
    new.send(&answer).await;
    assert_eq!(envoy.next().await, answer);
    old.end().await;
    let state = mesh
        .until(|state| state.connected_to.as_ref().unwrap().contains("127.0.0.2"))
        .await;
    assert!(state.envoy_connected);

    // And to another name and port, when the bundle says so.
    let port = mesh.world.serve("other", elsewhere, 0).await;
    mesh.selector.replace(vec![format!("{ISTIOD}:{port}")]);
    moved_to(&mut mesh, "other", 2).await;
}
