use std::net::SocketAddr;

use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::{TcpListener, UnixStream};

use super::*;
use crate::config::PathsConfig;
use crate::facts::Departure;
use crate::xds::standby::{Place, Word, context, hold};

const NODE: &[u8] = b"\x0a\x02vm";
const LIFE: Duration = Duration::from_secs(3600);

/// An agent whose VM istiod registers, and what it tells its standby.
async fn telling() -> (Mesh, Lines<BufReader<UnixStream>>) {
    let mesh = Mesh::taking_over(NODE).await;
    mesh.membership.send_modify(|membership| {
        let env = &mut Arc::make_mut(membership).env;
        env.insert("ISTIO_META_AUTO_REGISTER_GROUP".to_owned(), "catalog".to_owned());
    });
    let socket = mesh.socket.with_file_name("place.sock");
    let connected = async {
        loop {
            match UnixStream::connect(&socket).await {
                Ok(stream) => break stream,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    };
    (mesh, BufReader::new(soon(connected).await).lines())
}

async fn next_word(words: &mut Lines<BufReader<UnixStream>>) -> Word {
    loop {
        let line = soon(words.next_line()).await.unwrap().expect("the agent has ended");
        match Word::parse(line.as_bytes()).unwrap() {
            Word::Here => {}
            word => break word,
        }
    }
}

/// The next place. Before it was known that istiod registers the VM, none was to be held.
async fn next_place(words: &mut Lines<BufReader<UnixStream>>) -> Place {
    loop {
        if let Word::Hold(place) = next_word(words).await {
            break place;
        }
    }
}

fn ready() -> EnvoyState {
    EnvoyState::Ready {
        pid: 1,
        adopted: true,
        restarts: 0,
        successor: None,
    }
}

#[tokio::test]
async fn place_is_given_of_a_vm_that_serves_and_taken_back_of_any_other() {
    let (mesh, mut words) = telling().await;
    mesh.proxy.send_replace(ready());
    assert!(!next_place(&mut words).await.healthy);
    mesh.probe.send_replace(ProbeState::Healthy);
    assert!(next_place(&mut words).await.healthy);
    let reason = "it ended".to_owned();
    mesh.proxy.send_replace(EnvoyState::Down { reason });
    assert_eq!(next_word(&mut words).await, Word::Forget);
    mesh.proxy.send_replace(ready());
    next_place(&mut words).await;
    let reason = "answers 503".to_owned();
    mesh.probe.send_replace(ProbeState::Unhealthy { reason });
    assert_eq!(next_word(&mut words).await, Word::Forget);
    mesh.probe.send_replace(ProbeState::Healthy);
    next_place(&mut words).await;
    mesh.departure.send_replace(Departure::Announced);
    assert_eq!(next_word(&mut words).await, Word::Forget);
}

#[tokio::test]
async fn standby_says_what_the_agent_has_told_it_until_envoy_is_gone() {
    let (mut mesh, mut words) = telling().await;
    let _own = mesh.accepted().await;
    mesh.probe.send_replace(ProbeState::Healthy);
    mesh.proxy.send_replace(ready());
    let mut place = next_place(&mut words).await;
    while !place.healthy {
        place = next_place(&mut words).await;
    }
    let paths = PathsConfig {
        run: "/".into(),
        state: "/".into(),
    };
    let host = mesh.world.snapshot().host;
    let credentials = mesh.credentials.borrow().as_deref().cloned();
    let (context, _) = context(&host, &paths, place, Ok(credentials)).unwrap();
    let envoy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at: [SocketAddr; 1] = [envoy.local_addr().unwrap()];
    let mut stream = tokio::select! {
        reason = hold(&context, LIFE, &at) => panic!("{reason}"),
        stream = async {
            let mut stream = mesh.accepted().await;
            let introduction = next_request(&mut stream).await;
            assert_eq!((&*introduction.type_url, introduction.node.as_deref()), (NAME_TABLE, Some(NODE)));
            assert_eq!(next_request(&mut stream).await.type_url, HEALTH_INFORMATION);
            assert!(stream.certificate.is_some());
            stream
        } => stream,
    };
    // An agent is back.
    stream.end().await;
    drop(envoy);
    assert_eq!(soon(Box::pin(hold(&context, LIFE, &at))).await, "its Envoy is gone");
    assert!(mesh.no_stream());
}
