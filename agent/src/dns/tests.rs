mod floods;
mod server;
mod standby;
mod upstreams;

use std::time::Duration;

use hickory_proto::op::{Message, ResponseCode};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::forward::{receive_framed, send_framed};
use super::*;
use crate::host::System;
use server::{Server, answer, answer_to, member_of, query, table_of};
use upstreams::{Says, reply_to, upstreams};

/// Longest wait for any answer; only a failing test waits for so long.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn mesh_answers_its_names_and_the_upstream_all_others() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::Address("192.0.2.1")]).await;
    let server = Server::start(port, &["127.0.0.1"]).await;
    assert_eq!(
        answer(&server.udp(&query("cart.")).await),
        "192.0.2.1",
        "before the first table"
    );
    server.publish(&["10.0.0.1"]);
    server.becomes("cart.", "10.0.0.1!").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for (name, wanted) in [
        ("cart.shop.svc.", "10.0.0.1!"),
        ("example.org.", "192.0.2.1"),
        ("CART.shop.", "10.0.0.1!"),
    ] {
        assert_eq!(answer(&server.udp(&query(name)).await), wanted, "{name} over UDP");
        assert_eq!(
            answer(&server.tcp(&mut stream, &query(name)).await),
            wanted,
            "{name} over TCP"
        );
    }
}

#[tokio::test]
async fn new_facts_and_a_new_resolv_conf_count_soon() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::Address("192.0.2.1"), Says::Address("192.0.2.2")]).await;
    let server = Server::start(port, &["127.0.0.1"]).await;
    server.publish(&["10.0.0.1"]);
    server.becomes("cart.", "10.0.0.1!").await;
    server.publish(&["10.0.0.2"]);
    server.becomes("cart.", "10.0.0.2!").await;
    server.membership.send_replace(Arc::new(member_of("other")));
    server.becomes("cart.", "192.0.2.1").await;
    assert_eq!(answer(&server.udp(&query("cart.shop.")).await), "10.0.0.2!");
    server.resolve_by(&["127.0.0.2"]);
    server.becomes("example.org.", "192.0.2.2").await;
}

// In real time: a paused clock would run out while a packet is in the kernel.
#[tokio::test]
async fn upstream_that_is_silent_or_can_not_help_is_followed_by_the_next_one() {
    use Says::{Address, Code, Nothing};
    let good = Address("192.0.2.9");
    let cases = [
        (vec![Nothing, good], "192.0.2.9"),
        (vec![Code(ResponseCode::ServFail), good], "192.0.2.9"),
        (vec![Code(ResponseCode::Refused), Nothing], "Refused"),
        (vec![Code(ResponseCode::NXDomain), good], "NXDomain"),
        (vec![Nothing, Nothing], "ServFail"),
    ];
    let asked = cases.map(async |(says, wanted)| {
        let (scope, _drain) = Scope::detached();
        let port = upstreams(&scope, &says).await;
        let server = Server::start(port, &["127.0.0.1", "127.0.0.2"]).await;
        assert_eq!(answer(&server.udp(&query("example.org.")).await), wanted, "{says:?}");
    });
    let [a, b, c, d, e] = asked;
    tokio::join!(a, b, c, d, e);
}

#[tokio::test]
async fn mesh_names_are_resolved_without_any_upstream() {
    let server = Server::start(1, &["127.0.0.1"]).await;
    server.publish(&["10.0.0.1"]);
    server.becomes("cart.", "10.0.0.1!").await;
    assert_eq!(answer(&server.udp(&query("example.org.")).await), "ServFail");
    server.resolve_by(&[]);
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    assert_eq!(
        answer(&server.tcp(&mut stream, &query("example.org.")).await),
        "ServFail"
    );
}

#[tokio::test]
async fn mesh_name_on_a_connection_does_not_wait_for_an_upstream() {
    // It takes the connection and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(silent.local_addr().unwrap().port(), &["127.0.0.1"]).await;
    server.publish(&["10.0.0.1"]);
    server.becomes("cart.", "10.0.0.1!").await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let (slow, known) = (query("slow.example."), query("cart."));
    send_framed(&mut stream, &slow).await.unwrap();
    let _asked = silent.accept().await.unwrap();
    assert_eq!(answer(&server.tcp(&mut stream, &known).await), "10.0.0.1!");
    let late = timeout(DEADLINE, receive_framed(&mut stream)).await.unwrap().unwrap();
    assert_eq!(answer(&answer_to(&slow, &late)), "ServFail");
}

#[tokio::test]
async fn answer_too_long_for_udp_comes_whole_over_tcp() {
    let server = Server::start(1, &[]).await;
    let ips: Vec<String> = (1..200).map(|n| format!("10.0.0.{n}")).collect();
    server.publish(&ips.iter().map(String::as_str).collect::<Vec<_>>());
    timeout(DEADLINE, async {
        while !server.udp(&query("cart.")).await.metadata.truncation {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut orders = Vec::new();
    for _ in 0..2 {
        let whole = server.tcp(&mut stream, &query("cart.")).await;
        assert_eq!(whole.answers.len(), ips.len());
        orders.push(whole.answers);
    }
    assert_ne!(orders[0], orders[1], "the order is another one each time");
}

#[tokio::test]
async fn bad_packets_get_formerr_or_nothing_and_stop_nothing() {
    let server = Server::start(1, &[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&[0; 11], server.address).await.unwrap();
    socket.send_to(&[], server.address).await.unwrap();
    let cut = query("example.org.");
    let reply = server.udp(&cut[..20]).await;
    assert_eq!(answer(&reply), "FormErr");
    assert_eq!(reply.metadata.id, Message::from_vec(&cut).unwrap().metadata.id);
}

#[tokio::test]
async fn server_ends_with_the_drain_and_leaves_the_port() {
    let server = Server::start(1, &[]).await;
    assert_eq!(answer(&server.udp(&query("a.")).await), "ServFail");
    server.drain.cancel();
    timeout(DEADLINE, server.done).await.unwrap().unwrap();
    drop(server.scope);
    timeout(DEADLINE, async {
        while UdpSocket::bind(server.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn port_that_is_taken_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Sockets::bind(&[taken.local_addr().unwrap()], InheritedSockets::default())
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains(&format!("failed to listen for DNS on {}", taken.local_addr().unwrap())));
    let absent = "192.0.2.1:0".parse().unwrap();
    assert!(Sockets::bind(&[absent], InheritedSockets::default()).await.is_err());
    let both = [absent, "127.0.0.1:0".parse().unwrap()];
    let mixed = Sockets::bind(&both, InheritedSockets::default()).await.unwrap();
    assert_eq!(mixed.addresses().len(), 1);
}

#[tokio::test]
async fn port_that_somebody_has_on_another_address_is_lost_to_containers_alone() {
    let is_free = async |port| {
        TcpListener::bind(("127.0.0.1", port)).await.is_ok() && UdpSocket::bind(("127.0.0.1", port)).await.is_ok()
    };
    // Another test may have the same port of the agent's address.
    let (taken, taken_by_udp) = loop {
        let taken = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let taken_by_udp = UdpSocket::bind("127.0.0.2:0").await.unwrap();
        let ports = [
            taken.local_addr().unwrap().port(),
            taken_by_udp.local_addr().unwrap().port(),
        ];
        if is_free(ports[0]).await && is_free(ports[1]).await {
            break (taken, taken_by_udp);
        }
    };
    for theirs in [taken.local_addr().unwrap(), taken_by_udp.local_addr().unwrap()] {
        let listen = ["127.0.0.1", "0.0.0.0"].map(|ip| SocketAddr::new(ip.parse().unwrap(), theirs.port()));
        let root = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/proc", root.path().join("proc")).unwrap();
        let options = Options {
            listen: listen.to_vec(),
            ..Options::new(Host::new(root.path(), System), Refusals::default())
        };
        let mut told = options.problem.subscribe();
        let (members, names, machine) = (
            watch::channel(Arc::new(member_of("shop"))).1,
            watch::channel(None).1,
            watch::channel(HostState::default()).1,
        );
        let (scope, _drain) = Scope::detached();
        let serving = run(scope, options, InheritedSockets::default(), members, names, machine);
        let told = tokio::select! {
            ended = serving => panic!("{ended:?}"),
            told = timeout(DEADLINE, told.wait_for(Option::is_some)) => told.unwrap().unwrap().clone().unwrap(),
        };
        assert!(told.contains(&format!(":{}", theirs.port())), "{told}");
    }
}

#[tokio::test]
async fn query_that_came_while_there_was_no_agent_is_answered_once_the_names_are_known() {
    let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = tcp.local_addr().unwrap();
    let udp = std::net::UdpSocket::bind(address).unwrap();
    let (client, packet) = (
        UdpSocket::bind("127.0.0.1:0").await.unwrap(),
        query("cart.shop.svc.cluster.local"),
    );
    client.send_to(&packet, address).await.unwrap();

    let root = tempfile::tempdir().unwrap();
    let options = Options {
        listen: vec![address],
        ..Options::new(Host::new(root.path(), System), Refusals::default())
    };
    let (scope, drain) = Scope::detached();
    let (_membership, members) = watch::channel(Arc::new(member_of("shop")));
    let (names, table) = watch::channel(None);
    let (_machine, known) = watch::channel(HostState::default());
    let agent = run(scope.clone(), options, vec![(udp, tcp)].into(), members, table, known);
    let (outer, _) = Scope::detached();
    outer.spawn(async move { agent.await.unwrap() });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    names.send_replace(Some(Arc::new(table_of(&["10.0.0.9"]))));
    let mut reply = vec![0; 65_535];
    let length = timeout(DEADLINE, client.recv(&mut reply)).await.unwrap().unwrap();
    assert_eq!(answer(&answer_to(&packet, &reply[..length])), "10.0.0.9!");
    drain.cancel();
}

#[tokio::test]
async fn socket_of_all_addresses_is_for_containers_alone() {
    let server = Server::start_at(&["0.0.0.0:0"], 53, &[]).await;
    server.publish(&["10.0.0.1"]);
    let address = (Ipv4Addr::LOCALHOST, server.address.port());
    let packet = query("cart.shop.svc.cluster.local.");
    let mut stranger = TcpStream::connect(address).await.unwrap();
    // It may be closed before it is written to.
    let _ = send_framed(&mut stranger, &packet).await;
    let refused = timeout(DEADLINE, receive_framed(&mut stranger)).await.unwrap();
    assert!(refused.is_err(), "a stranger is answered");

    server.bridge("127.0.0.0/8");
    let mut container = TcpStream::connect(address).await.unwrap();
    send_framed(&mut container, &packet).await.unwrap();
    let reply_by_tcp = timeout(DEADLINE, receive_framed(&mut container))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer(&answer_to(&packet, &reply_by_tcp)), "10.0.0.1!");
    let datagrams = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    datagrams.send_to(&packet, address).await.unwrap();
    let mut reply = vec![0; 65_535];
    let length = timeout(DEADLINE, datagrams.recv(&mut reply)).await.unwrap().unwrap();
    assert_eq!(answer(&answer_to(&packet, &reply[..length])), "10.0.0.1!");
}
