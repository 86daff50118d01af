use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::forward::{receive_framed, send_framed};
use super::*;
use crate::facts::{NameInfo, ProxyConfig, SpiffeId};
use crate::host::System;

/// Long enough for any answer; only a failing test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

/// The agent's DNS on a port of its own, over a resolv.conf of its own.
struct Server {
    root: tempfile::TempDir,
    address: SocketAddr,
    scope: Scope,
    drain: CancellationToken,
    membership: watch::Sender<Arc<Membership>>,
    names: watch::Sender<Option<Arc<NameTable>>>,
    done: tokio::sync::oneshot::Receiver<()>,
}

impl Server {
    async fn start(upstream_port: u16, servers: &[&str]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let (scope, drain) = Scope::detached();
        let (membership, members) = watch::channel(Arc::new(member_of("shop")));
        let (names, table) = watch::channel(None);
        let options = Options {
            host,
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            resolv_conf: "/resolv.conf".into(),
            upstream_port,
            patience: Duration::from_secs(1),
        };
        let sockets = Sockets::bind(&options.listen, KeptSockets::default()).await.unwrap();
        let address = sockets.addresses()[0];
        let (ended, done) = tokio::sync::oneshot::channel();
        // Not under the drain that ends it: the test sees whether it ends by itself.
        let (outer, _) = Scope::detached();
        outer.spawn({
            let scope = scope.clone();
            async move {
                serve(scope, options, sockets, members, table).await;
                let _ = ended.send(());
            }
        });
        let server = Self {
            root,
            address,
            scope,
            drain,
            membership,
            names,
            done,
        };
        server.resolve_by(servers);
        server
    }

    fn resolve_by(&self, servers: &[&str]) {
        let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
        Host::new(self.root.path(), System)
            .write(Path::new("/resolv.conf"), &text, 0o644, None)
            .unwrap();
    }

    fn publish(&self, ips: &[&str]) {
        self.names.send_replace(Some(Arc::new(table_of(ips))));
    }

    async fn udp(&self, packet: &[u8]) -> Message {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(packet, self.address).await.unwrap();
        let mut reply = vec![0; 65_535];
        let length = timeout(PATIENCE, socket.recv(&mut reply)).await.unwrap().unwrap();
        answer_to(packet, &reply[..length])
    }

    async fn tcp(&self, stream: &mut TcpStream, packet: &[u8]) -> Message {
        send_framed(stream, packet).await.unwrap();
        let reply = timeout(PATIENCE, receive_framed(stream)).await.unwrap().unwrap();
        answer_to(packet, &reply)
    }

    /// Asks until the answer is `wanted`.
    async fn becomes(&self, name: &str, wanted: &str) {
        timeout(PATIENCE, async {
            while answer(&self.udp(&query(name)).await) != wanted {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
    }
}

/// cart.shop.svc.cluster.local alone.
fn table_of(ips: &[&str]) -> NameTable {
    let info = NameInfo {
        ips: ips.iter().map(|ip| ip.parse().unwrap()).collect(),
        registry: "Kubernetes".to_owned(),
        shortname: "cart".to_owned(),
        namespace: "shop".to_owned(),
    };
    NameTable {
        names: [("cart.shop.svc.cluster.local".to_owned(), info)].into(),
    }
}

fn member_of(namespace: &str) -> Membership {
    Membership {
        env: Default::default(),
        proxy_config: ProxyConfig::default(),
        roots_pem: String::new(),
        hosts: Vec::new(),
        token_file: None,
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: namespace.to_owned(),
            service_account: "sa".to_owned(),
        },
        cluster_id: String::new(),
        discovery_address: String::new(),
        ca_address: String::new(),
        node_name: "vm".to_owned(),
        instance_ips: Vec::new(),
        inbound_ports: None,
        exclude_ports: Vec::new(),
        dns_capture: true,
        probe: None,
    }
}

fn query(name: &str) -> Vec<u8> {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    let mut edns = Edns::new();
    edns.set_max_payload(1400);
    message.set_edns(edns);
    message.to_vec().unwrap()
}

fn answer_to(packet: &[u8], reply: &[u8]) -> Message {
    assert_eq!(reply[..2], packet[..2], "an answer to another query");
    Message::from_vec(reply).unwrap()
}

/// Addresses, or the code when there are none; `!` marks an answer of the mesh.
fn answer(message: &Message) -> String {
    let addresses: Vec<String> = message.answers.iter().map(|record| record.data.to_string()).collect();
    match (addresses.is_empty(), message.metadata.authoritative) {
        (true, _) => format!("{:?}", message.metadata.response_code),
        (false, true) => format!("{}!", addresses.join(",")),
        (false, false) => addresses.join(","),
    }
}

/// What a server that we forward to says.
#[derive(Clone, Copy, Debug)]
enum Says {
    Address(&'static str),
    Code(ResponseCode),
    Nothing,
}

/// Servers on 127.0.0.1, 127.0.0.2, … with one port, which is returned. They end with the scope.
async fn upstreams(scope: &Scope, say: &[Says]) -> u16 {
    let mut port = 0;
    for (number, says) in (1..).zip(say.iter().copied()) {
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind((IpAddr::from([127, 0, 0, number]), port))
                .await
                .unwrap();
            match TcpListener::bind(udp.local_addr().unwrap()).await {
                Ok(tcp) => break (udp, tcp),
                // Somebody has the port that the kernel chose: another will do.
                Err(_) if port == 0 => {}
                Err(error) => panic!("{error}"),
            }
        };
        port = udp.local_addr().unwrap().port();
        scope.spawn(async move {
            let mut buffer = vec![0; 65_535];
            loop {
                let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
                if let Some(reply) = reply_to(&buffer[..length], says) {
                    let stale = [&[reply[0] ^ 1], &reply[1..]].concat();
                    udp.send_to(&stale, client).await.unwrap();
                    udp.send_to(&reply, client).await.unwrap();
                }
            }
        });
        scope.spawn(async move {
            loop {
                let (mut stream, _) = tcp.accept().await.unwrap();
                let packet = receive_framed(&mut stream).await.unwrap();
                if let Some(reply) = reply_to(&packet, says) {
                    send_framed(&mut stream, &reply).await.unwrap();
                }
            }
        });
    }
    port
}

fn reply_to(packet: &[u8], says: Says) -> Option<Vec<u8>> {
    let mut message = Message::from_vec(packet).unwrap().into_response();
    assert_eq!(message.max_payload(), 1400, "EDNS is passed on");
    match says {
        Says::Nothing => return None,
        Says::Code(code) => message.metadata.response_code = code,
        Says::Address(ip) => {
            let name = message.queries[0].name.clone();
            message.add_answer(Record::from_rdata(name, 5, RData::A(A(ip.parse().unwrap()))));
        }
    }
    Some(message.to_vec().unwrap())
}

#[tokio::test]
async fn the_mesh_answers_its_names_and_the_upstream_all_others() {
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
async fn new_facts_and_a_new_resolv_conf_count_at_once() {
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
    assert_eq!(answer(&server.udp(&query("example.org.")).await), "192.0.2.2");
}

// In real time: a paused clock would run out while a packet is in the kernel.
#[tokio::test]
async fn the_next_upstream_is_asked_when_one_is_silent_or_can_not_help() {
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
async fn without_any_upstream_the_mesh_still_resolves() {
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
async fn an_answer_too_long_for_udp_comes_whole_over_tcp() {
    let server = Server::start(1, &[]).await;
    let ips: Vec<String> = (1..200).map(|n| format!("10.0.0.{n}")).collect();
    server.publish(&ips.iter().map(String::as_str).collect::<Vec<_>>());
    timeout(PATIENCE, async {
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
async fn it_ends_with_the_drain_and_leaves_the_port() {
    let server = Server::start(1, &[]).await;
    assert_eq!(answer(&server.udp(&query("a.")).await), "ServFail");
    server.drain.cancel();
    timeout(PATIENCE, server.done).await.unwrap().unwrap();
    drop(server.scope);
    timeout(PATIENCE, async {
        while UdpSocket::bind(server.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_port_that_is_taken_is_an_error_that_says_so() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Sockets::bind(&[taken.local_addr().unwrap()], KeptSockets::default())
        .await
        .unwrap_err();
    assert!(format!("{error:#}").contains(&format!("failed to listen for DNS on {}", taken.local_addr().unwrap())));
    let absent = "192.0.2.1:0".parse().unwrap();
    assert!(Sockets::bind(&[absent], KeptSockets::default()).await.is_err());
    let both = [absent, "127.0.0.1:0".parse().unwrap()];
    let mixed = Sockets::bind(&both, KeptSockets::default()).await.unwrap();
    assert_eq!(mixed.addresses().len(), 1);
}

#[tokio::test]
async fn what_was_asked_while_there_was_no_agent_is_answered_once_the_names_are_known() {
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
        ..Options::new(Host::new(root.path(), System))
    };
    let (scope, drain) = Scope::detached();
    let (_membership, members) = watch::channel(Arc::new(member_of("shop")));
    let (names, table) = watch::channel(None);
    let agent = run(scope.clone(), options, vec![(udp, tcp)].into(), members, table);
    let (outer, _) = Scope::detached();
    outer.spawn(async move { agent.await.unwrap() });
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    names.send_replace(Some(Arc::new(table_of(&["10.0.0.9"]))));
    let mut reply = vec![0; 65_535];
    let length = timeout(PATIENCE, client.recv(&mut reply)).await.unwrap().unwrap();
    assert_eq!(answer(&answer_to(&packet, &reply[..length])), "10.0.0.9!");
    drain.cancel();
}
