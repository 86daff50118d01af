//! One client that asks more than its share, and the others.

use std::path::Path;

use tokio::io::AsyncReadExt;

use super::*;
use crate::dns::message::Transport;

/// A client that asks so many times that no place is left, and is gone before it is looked for: whoever it was, it is this VM.
fn flood(server: &Server, times: usize) {
    for _ in 0..times {
        let socket = std::net::UdpSocket::bind("127.0.0.9:0").unwrap();
        socket.send_to(&query("dead."), server.address).unwrap();
    }
}

#[tokio::test]
async fn queries_for_a_silent_server_take_nobody_elses_places() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::OfTheLiving("192.0.2.1")]).await;
    let server = Server::start(port, &["127.0.0.1"]).await;
    for turn in 0..5 {
        // As many as the socket's buffer holds.
        flood(&server, 100);
        for number in 0..10 {
            // Each another one, which is not answered by what was said before.
            let name = format!("n{turn}{number}.example.org.");
            assert_eq!(answer(&server.udp(&query(&name)).await), "192.0.2.1");
        }
    }
    let [refused] = server.refusals.all().try_into().unwrap();
    assert_eq!(
        (refused.what.as_str(), refused.whose.as_str()),
        ("DNS forwards", "127.0.0.1")
    );
}

/// A container sends as whoever it likes of its bridge's network.
#[tokio::test]
async fn container_that_is_many_clients_takes_no_place_of_this_vms_users() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::OfTheLiving("192.0.2.1")]).await;
    let server = Server::start_at(&["127.0.0.1:0", "0.0.0.0:0"], port, &["127.0.0.1"]).await;
    server.bridge("127.7.0.0/16");
    let of_containers = (Ipv4Addr::LOCALHOST, server.addresses[1].port());
    for turn in 1..=5 {
        for number in 1..=150 {
            let socket = std::net::UdpSocket::bind((Ipv4Addr::new(127, 7, turn, number), 0)).unwrap();
            socket.send_to(&query("dead."), of_containers).unwrap();
        }
        let name = format!("n{turn}.example.org.");
        assert_eq!(answer(&server.udp(&query(&name)).await), "192.0.2.1");
    }
    let refused: Vec<String> = server.refusals.all().into_iter().map(|it| it.what).collect();
    assert_eq!(refused, ["DNS forwards of containers"]);
}

#[tokio::test]
async fn question_of_many_is_asked_once_and_answered_to_each_as_it_was_asked() {
    let upstream = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = Server::start(upstream.local_addr().unwrap().port(), &["127.0.0.1"]).await;
    let mut clients = Vec::new();
    for name in ["shop.example.org.", "sHOP.example.org."].repeat(40) {
        let (client, packet) = (UdpSocket::bind("127.0.0.1:0").await.unwrap(), query(name));
        client.send_to(&packet, server.address).await.unwrap();
        clients.push((client, packet));
    }
    let mut buffer = vec![0; 65_535];
    let (length, agent) = timeout(DEADLINE, upstream.recv_from(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    let reply = reply_to(&buffer[..length], Says::Address("192.0.2.1")).unwrap();
    upstream.send_to(&reply, agent).await.unwrap();
    for (client, packet) in clients {
        let length = timeout(DEADLINE, client.recv(&mut buffer)).await.unwrap().unwrap();
        assert_eq!(answer(&answer_to(&packet, &buffer[..length])), "192.0.2.1");
        assert_eq!(buffer[12..30], packet[12..30], "the name as it was asked");
    }
}

#[tokio::test]
async fn idle_connections_keep_nobody_out() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::Address("192.0.2.1")]).await;
    let server = Server::start(port, &["127.0.0.1"]).await;
    let mut idle = Vec::new();
    for _ in 0..300 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    for _ in 0..2 {
        assert_eq!(
            answer(&server.tcp(&mut stream, &query("example.org.")).await),
            "192.0.2.1"
        );
    }
    assert_eq!(timeout(DEADLINE, idle[0].read(&mut [0])).await.unwrap().unwrap(), 0);
    assert_eq!(server.refusals.all()[0].what, "DNS connections");
}

#[tokio::test]
async fn packets_that_are_too_long_too_short_or_empty_stop_nothing() {
    let server = Server::start(1, &[]).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let long = [query("a.").as_slice(), &[0; 8 << 10]].concat();
    for packet in [&long[..], &[], &[0], &[0xff; 600]] {
        socket.send_to(packet, server.address).await.unwrap();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // What it is ended for may be told as a reset.
        let _ = send_framed(&mut stream, packet).await;
        let _ = stream.read(&mut [0]).await;
    }
    assert_eq!(answer(&server.udp(&query("a.")).await), "ServFail");
}

#[tokio::test]
async fn server_that_answers_nothing_has_no_head_start_soon_though_the_next_one_answers() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::Nothing, Says::Address("192.0.2.1")]).await;
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    let path = Path::new("/resolv.conf");
    let text = "nameserver 127.0.0.1\nnameserver 127.0.0.2\n";
    host.write(path, text, 0o644, None).unwrap();
    let current = Current::new(host, path.to_owned(), &[], port);
    let upstreams = Upstreams::new(current, port, Duration::from_secs(5));
    let first = Some(upstreams.addresses()[0]);
    let name = query("a.");
    for _ in 0..3 {
        assert!(upstreams.head_start(first) > Duration::ZERO);
        assert!(upstreams.ask(&name, Transport::Udp).await.is_some());
    }
    assert_eq!(upstreams.head_start(first), Duration::ZERO);
}

#[tokio::test]
async fn server_that_answers_nothing_is_soon_asked_beside_the_next_until_it_answers() {
    let (scope, _drain) = Scope::detached();
    let port = upstreams(&scope, &[Says::OfTheLiving("192.0.2.1")]).await;
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    let path = Path::new("/resolv.conf");
    host.write(path, "nameserver 127.0.0.1\n", 0o644, None).unwrap();
    let query_timeout = Duration::from_secs(1);
    let upstreams = Upstreams::new(Current::new(host, path.to_owned(), &[], port), port, query_timeout);
    let server = Some(upstreams.addresses()[0]);
    let (dead, alive) = (query("dead."), query("alive."));
    let ask = |query| upstreams.ask(query, Transport::Udp);
    let has_start = || upstreams.head_start(server) > Duration::ZERO;
    tokio::join!(ask(&dead), ask(&dead));
    assert!(has_start() && upstreams.head_start(server) < query_timeout);
    assert_eq!(ask(&dead).await, None);
    assert!(!has_start(), "it is asked beside the next one");
    assert!(ask(&alive).await.is_some());
    assert!(has_start());
}
