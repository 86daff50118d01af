//! 15020 on a port of its own, and hosts of the network that are addresses of loopback.

use std::net::IpAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use super::*;
use crate::config::Config;
use crate::control_plane::fixtures::membership;
use crate::part::Shared;

/// Long enough for any answer; only a failing test waits for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    health: watch::Sender<Health>,
    channels: Arc<OnceLock<Channels>>,
    network: Shares,
    refusals: Refusals,
    _scope: Scope,
    _drain: tokio_util::sync::CancellationToken,
}

impl Server {
    /// To which every address of loopback but 127.0.0.1 is a host of the network.
    async fn start() -> Self {
        let (scope, drain) = Scope::detached();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let refusals = Refusals::default();
        let doors = PortShares {
            whose: |stream| match stream.peer_addr().ok()?.ip() {
                IpAddr::V4(ip) if ip.is_loopback() && ip.octets()[3] != 1 => {
                    Some(Client::host([10, 0, 0, ip.octets()[3]].into()))
                }
                _ => whose(stream),
            },
            ..PortShares::new(&refusals)
        };
        let server = Self {
            address: listener.local_addr().unwrap(),
            health: watch::Sender::default(),
            channels: Arc::default(),
            network: doors.network.clone(),
            refusals,
            _scope: scope.clone(),
            _drain: drain,
        };
        let told = StatusPort {
            health: server.health.subscribe(),
            pages: pages().into(),
            channels: Arc::clone(&server.channels),
            patient_until: None,
        };
        scope.spawn_loop(serve_pages(scope.clone(), listener, told, doors));
        server
    }

    async fn connect(&self, from: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 0, from], 0))).unwrap();
        socket.connect(self.address).await.unwrap()
    }

    async fn says(&self, from: u8, request: &str) -> String {
        let mut stream = self.connect(from).await;
        // Who says too much is cut off at any moment, and hears of it or not.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut said = String::new();
        let _ = timeout(ANSWER_TIMEOUT, stream.read_to_string(&mut said)).await.unwrap();
        said
    }
}

fn pages() -> [Page; 4] {
    let said = |_: &Channels, _: &Parts| text(StatusCode::OK, "said");
    [
        Page::of_facts("/all", |_| Audience::Everyone, said),
        Page::of_facts("/here/", |_| Audience::ThisHost, said),
        Page::of_facts("/root", |_| Audience::Root, said),
        Page::order("/order", |_| text(StatusCode::OK, "done")),
    ]
}

const PROBE: &str = "GET /healthz/ready HTTP/1.1\r\nHost: a\r\n\r\n";

fn ready(ready: bool) -> Health {
    Health {
        ready,
        problems: vec!["a word of root's".to_owned()],
        ..Health::default()
    }
}

#[tokio::test]
async fn network_hears_whether_the_vm_is_ready_and_nothing_else() {
    let server = Server::start().await;
    for (is_ready, code, body) in [(false, "503", "not ready"), (true, "200", "ready")] {
        server.health.send_replace(ready(is_ready));
        for from in [1, 9] {
            let said = server.says(from, PROBE).await;
            assert!(said.starts_with(&format!("HTTP/1.1 {code} ")), "{said}");
            assert!(said.ends_with(&format!("\r\n\r\n{body}")), "{said}");
        }
    }
    for (request, code) in [
        ("GET /status HTTP/1.1\r\nHost: a\r\n\r\n", "404"),
        (
            "POST /healthz/ready HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
            "405",
        ),
        ("GET\r\n\r\n", "400"),
    ] {
        let said = server.says(9, request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {code} ")), "{request}: {said}");
    }
}

#[tokio::test(start_paused = true)]
async fn agent_that_follows_another_is_waited_for_and_not_for_ever() {
    let health = watch::Sender::default();
    let told = StatusPort {
        health: health.subscribe(),
        pages: [].into(),
        channels: Arc::default(),
        patient_until: Some(Instant::now() + Duration::from_secs(5)),
    };
    let mut answer = std::pin::pin!(told.clone().readiness());
    assert!(timeout(Duration::from_secs(1), &mut answer).await.is_err());
    health.send_replace(ready(true));
    assert_eq!(answer.await.status(), StatusCode::OK);
    health.send_replace(ready(false));
    assert_eq!(told.clone().readiness().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(told.patient_until.unwrap() <= Instant::now());
}

#[tokio::test]
async fn page_is_seen_by_its_audience_alone_and_by_nobody_before_the_join() {
    let server = Server::start().await;
    let code = async |from, line: &str| {
        let said = server.says(from, &format!("{line} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        said[9..12].to_owned()
    };
    assert_eq!(code(1, "GET /all").await, "503");
    let joined = Channels::new(membership(), &Config::default(), Shared::default());
    server.channels.get_or_init(|| joined);
    let is_root = nix::unistd::getuid().is_root();
    let root = if is_root { "200" } else { "403" };
    for (line, here, network) in [
        ("GET /all", "200", "200"),
        ("HEAD /all", "200", "200"),
        ("POST /all", "405", "405"),
        ("GET /here/there", "200", "403"),
        ("GET /here", "404", "404"),
        ("GET /root", root, "403"),
        ("POST /order", root, "403"),
        ("GET /order", if is_root { "405" } else { "403" }, "403"),
    ] {
        assert_eq!(
            (code(1, line).await.as_str(), code(9, line).await.as_str()),
            (here, network),
            "{line}"
        );
    }
}

#[tokio::test]
async fn thousand_unfinished_requests_of_one_host_keep_nobody_out() {
    let server = Server::start().await;
    server.health.send_replace(ready(true));
    let unfinished = format!("GET /healthz/ready HTTP/1.1\r\nX: {}", "x".repeat(4 << 10));
    let mut flood = Vec::new();
    let mut patient = server.connect(8).await;
    patient.write_all(&PROBE.as_bytes()[..8]).await.unwrap();
    for number in 0..1_000 {
        let mut stream = server.connect(9).await;
        // It may be closed already.
        let _ = stream.write_all(unfinished.as_bytes()).await;
        flood.push(stream);
        if number % 100 == 99 {
            for from in [1, 7] {
                let said = server.says(from, PROBE).await;
                assert!(said.ends_with("ready"), "{said}");
            }
        }
        assert!(server.network.taken() <= FROM_NETWORK);
    }
    // One who is slow is not the one who gives way.
    patient.write_all(&PROBE.as_bytes()[8..]).await.unwrap();
    let mut said = String::new();
    timeout(ANSWER_TIMEOUT, patient.read_to_string(&mut said))
        .await
        .unwrap()
        .unwrap();
    assert!(said.ends_with("ready"), "{said}");
    let [refused] = server.refusals.all().try_into().unwrap();
    assert_eq!(
        (refused.what.as_str(), refused.whose.as_str()),
        ("15020 connections", "10.0.0.9")
    );
    assert!(refused.count as usize > 950 - FROM_NETWORK, "{refused:?}");
}

#[tokio::test]
async fn head_without_end_is_cut_off_and_a_body_is_not_waited_for() {
    let server = Server::start().await;
    let said = server
        .says(9, &format!("GET /{} HTTP/1.1\r\n", "x".repeat(64 << 10)))
        .await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 4"), "{said}");
    let unsent = "GET /healthz/ready HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n";
    let said = server.says(9, unsent).await;
    assert!(said.ends_with("not ready"), "{said}");
}

#[tokio::test(start_paused = true)]
async fn client_that_says_nothing_is_gone_after_a_while() {
    let refusals = Refusals::default();
    let shares = Shares::new("connections", 1, Duration::ZERO, refusals);
    let (_silent, server) = tokio::io::duplex(64);
    let place = shares.take(Client::User(0)).unwrap();
    exchange(server, place, |_| std::future::ready(text(StatusCode::OK, ""))).await;
    assert_eq!(shares.taken(), 0);
}
