//! Answers that were given before, in paused time: no server is there, or none that answers.

use std::net::Ipv4Addr;
use std::path::Path;

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::time::advance;

use super::*;
use crate::dns::resolv_conf::Current;
use crate::host::{Host, System};

const TTL: Duration = Duration::from_secs(60);

fn query() -> Message {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii("example.org.").unwrap(), RecordType::A));
    message
}

/// A server that has had one answer from those of `conf`, on `port`.
fn server_of(conf: &str, port: u16) -> (Server, Vec<u8>, tempfile::TempDir) {
    let root = tempfile::tempdir().unwrap();
    let host = Host::new(root.path(), System);
    let path = Path::new("/resolv.conf");
    host.write(path, conf, 0o644, None).unwrap();
    let upstreams = Upstreams::new(
        Current::new(host, path.to_owned(), &[], port),
        port,
        Duration::from_secs(2),
    );
    let (_, table) = watch::channel(Arc::default());
    let (_, machine) = watch::channel(HostState::default());
    let server = Server::new(table, upstreams, machine, Refusals::default(), DnsCounts::default());
    let packet = query().to_vec().unwrap();
    let Action::Forward(fallback) = server.decide(&packet, Transport::Udp) else {
        panic!("nobody has said anything")
    };
    assert!(!fallback.is_stale);
    let mut reply = query().into_response();
    let data = RData::A(A([192, 0, 2, 1].into()));
    reply.add_answer(Record::from_rdata(
        reply.queries[0].name.clone(),
        TTL.as_secs() as u32,
        data,
    ));
    let conf = server.upstreams.conf();
    server
        .cache
        .put(&packet, Transport::Udp, &conf, &reply.to_vec().unwrap());
    (server, packet, root)
}

/// The TTL of an answer that is given at once.
fn at_once(server: &Server, packet: &[u8]) -> Option<u32> {
    match server.decide(packet, Transport::Udp) {
        Action::Reply(reply) => Some(Message::from_vec(&reply).unwrap().answers[0].ttl),
        _ => None,
    }
}

/// The TTL of an answer for which servers are asked first.
async fn after_asking(server: &Server, packet: &[u8]) -> Option<u32> {
    let Action::Forward(fallback) = server.decide(packet, Transport::Udp) else {
        panic!("it is answered at once")
    };
    let place = server
        .users
        .forwards
        .take(Client::host(Ipv4Addr::LOCALHOST.into()))
        .unwrap();
    let reply = server.forward(packet, Transport::Udp, &place, fallback).await;
    Some(Message::from_vec(&reply).unwrap().answers.first()?.ttl)
}

#[tokio::test(start_paused = true)]
async fn answer_of_before_is_given_while_it_holds_and_beyond_that_while_there_is_no_other() {
    let (server, packet, _root) = server_of("", 53);
    assert_eq!(at_once(&server, &packet), Some(60));
    advance(TTL).await;
    assert_eq!(after_asking(&server, &packet).await, Some(30));
    assert_eq!(at_once(&server, &packet), Some(30), "nobody is asked again so soon");
    advance(Duration::from_secs(30)).await;
    assert_eq!(after_asking(&server, &packet).await, Some(30));
    let counts = &server.counts;
    assert_eq!((counts.upstream_failures.get(), counts.kept_answers.get()), (2, 4));
    advance(Duration::from_secs(2 * 24 * 60 * 60)).await;
    assert_eq!(after_asking(&server, &packet).await, None);
}

#[tokio::test(start_paused = true)]
async fn client_gets_the_answer_of_before_while_a_server_says_nothing() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let (server, packet, _root) = server_of("nameserver 127.0.0.1\n", silent.local_addr().unwrap().port());
    advance(TTL).await;
    let began = Instant::now();
    assert_eq!(after_asking(&server, &packet).await, Some(30));
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "the client has waited for the server"
    );
}
