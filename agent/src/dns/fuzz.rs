//! Properties of DNS messages, of names and of resolv.conf, whatever the bytes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use futures_util::FutureExt;
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::{RData, RecordType};

use super::ask;
use super::cache::{Cache, Cached};
use super::check::nsswitch;
use super::fast_path;
use super::forward::{receive_framed, send_framed};
use super::message::{self, Packet, Transport};
use super::table::{Lookup, Table};
use crate::facts::{NameInfo, NameTable};
use crate::part::{Level, Subject};

/// Longest reply of ours over UDP, in bytes: the largest payload that a client can name.
const MAX_REPLY: usize = u16::MAX as usize;

/// The first byte says how many addresses the name has, the rest is what a client sent.
pub(crate) fn query(input: &[u8]) {
    let Some((count, packet)) = input.split_first() else {
        return;
    };
    // Enough for an answer that is too long for UDP.
    let count = count % 64;
    let replies = match message::read(packet) {
        Packet::Noise => return,
        Packet::Malformed(metadata) | Packet::Unsupported(metadata) => {
            vec![message::bare_failure(&metadata, ResponseCode::FormErr)]
        }
        Packet::Question(question) => {
            assert!(!question.name().ends_with('.') || question.name().ends_with("\\."));
            let v4 = (0..count).map(|n| IpAddr::from(Ipv4Addr::new(10, 0, 0, n)));
            let v6 = (0..count).map(|n| IpAddr::from(Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, n.into())));
            let addresses: Vec<IpAddr> = v4.chain(v6).collect();
            let over = |transport| question.answer(addresses.iter().copied().map(RData::from).collect(), transport);
            let replies = vec![
                over(Transport::Udp),
                over(Transport::Tcp),
                question.failure(ResponseCode::ServFail),
            ];
            for reply in &replies {
                let reply = reply.as_ref().expect("every question has a reply");
                assert!(message::answers(reply, packet), "the reply is to another question");
            }
            replies
        }
    };
    for reply in replies.into_iter().flatten() {
        assert_eq!(reply.get(..2), packet.get(..2), "the reply has another id");
        assert!(reply.len() <= MAX_REPLY);
        Message::from_vec(&reply).expect("what we send is a message");
    }
}

/// The first byte says how many addresses a name has, the rest is what a client sent: what the fast path answers, the slow one
/// answers alike.
pub(crate) fn plain_query(input: &[u8]) {
    let Some((count, packet)) = input.split_first() else {
        return;
    };
    let v4 = (0..count % 64).map(|n| IpAddr::from(Ipv4Addr::new(10, 0, 0, n)));
    let v6 = (0..count % 64).map(|n| IpAddr::from(Ipv6Addr::new(0xfd, 0, 0, 0, 0, 0, 0, n.into())));
    let info = NameInfo {
        ips: v4.chain(v6).collect(),
        registry: "Kubernetes".to_owned(),
        shortname: "cart".to_owned(),
        namespace: "shop".to_owned(),
    };
    let names = ["cart.shop.svc.cluster.local", "*.example.com"].map(|name| (name.to_owned(), info.clone()));
    let table = Table::new(&NameTable { names: names.into() }, "shop");
    let (search, mut fast) = (["c.proj.internal".to_owned()], Vec::new());
    if !fast_path::answer(packet, &table, &search, &mut fast) {
        return;
    }
    let Packet::Question(question) = message::read(packet) else {
        panic!("the fast path answers what is no question")
    };
    let name = question.name().to_ascii_lowercase();
    let found = table.lookup(&name, question.query.query_type, &search);
    let found = found.expect("both have the name").records();
    let slow = question
        .answer(found, Transport::Udp)
        .expect("every question has a reply");
    let [fast, slow] = [fast, slow].map(|reply| {
        let mut reply = Message::from_vec(&reply).expect("what we send is a message");
        // Any address comes first.
        reply.answers.sort_by_key(|record| record.data.to_string());
        reply
    });
    assert_eq!(fast, slow);
}

/// A server's reply, as `dns` prints it.
pub(crate) fn printed_reply(reply: &[u8]) {
    if let Ok(answer) = ask::read(RecordType::A, reply) {
        assert!(answer.records.len() <= reply.len());
    }
}

/// nsswitch.conf.
pub(crate) fn nsswitch_conf(text: &str) {
    let finding = nsswitch::judge(Subject::new("IVA702", "nsswitch"), text);
    assert!(finding.level != Level::Warning || text.contains("resolve"));
}

/// The first byte is the query's length, then come the query and the reply.
pub(crate) fn reply(input: &[u8]) {
    let Some((length, rest)) = input.split_first() else {
        return;
    };
    let (query, reply) = rest.split_at(rest.len().min(usize::from(*length)));
    if message::answers(reply, query) {
        assert_eq!(reply.get(..2), query.get(..2));
        assert!(message::code(reply).is_some());
    }
    let (cache, conf) = (Cache::default(), Arc::default());
    assert_eq!(cache.get(query, Transport::Udp, &conf), None);
    cache.put(query, Transport::Udp, &conf, reply);
    if let Some(Cached::Answer(kept)) = cache.get(query, Transport::Udp, &conf) {
        assert_eq!(kept.len(), reply.len());
        assert_eq!(kept.get(..2), query.get(..2), "the answer has another id");
        assert_eq!(kept.get(3), reply.get(3), "the answer has another code");
    }
}

/// The bytes of a TCP connection.
pub(crate) fn framing(input: &[u8]) {
    let mut rest = input;
    let mut again = Vec::new();
    loop {
        let left = rest.len();
        match receive_framed(&mut rest)
            .now_or_never()
            .expect("a slice waits for nobody")
        {
            Ok(message) => {
                assert_eq!(rest.len() + message.len() + 2, left);
                let sent = send_framed(&mut again, &message).now_or_never();
                sent.expect("a vector waits for nobody").expect("a message fits");
            }
            Err(_) => break,
        }
    }
    assert!(input.starts_with(&again), "what is sent is what came");
}

/// A name that is asked for, resolv.conf's search domain, and a name table as it is kept.
pub(crate) fn table(input: &str) {
    let mut parts = input.splitn(3, '\0');
    let (Some(name), Some(domain), Some(kept)) = (parts.next(), parts.next(), parts.next()) else {
        return;
    };
    let Ok(names) = serde_json::from_str::<NameTable>(kept) else {
        return;
    };
    let table = Table::new(&names, "shop");
    let search = [domain.to_owned()];
    for query in [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR] {
        let _ = table.lookup(name, query, &search).map(Lookup::records);
    }
    for (name, info) in &names.names {
        // A wildcard stands for other names than its own.
        let name = name
            .to_ascii_lowercase()
            .replacen("*.", "any.", usize::from(name.starts_with("*.")));
        let found = table
            .lookup(&name, RecordType::A, &[])
            .expect("a name that istiod gave is known");
        assert!(found.to_vec().iter().all(IpAddr::is_ipv4));
        assert!(info.registry != "Kubernetes" || table.lookup(&name, RecordType::SRV, &[]).is_some());
    }
}
