//! The cache in paused time.

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::A;
use hickory_proto::rr::{Name, RData, Record, RecordType};
use tokio::time::advance;

use super::*;
use crate::dns::message::answers;

const TTL: u32 = 60;

fn message(name: &str) -> Message {
    let mut message = Message::new(fastrand::u16(..), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
    message
}

fn query(name: &str) -> Vec<u8> {
    message(name).to_vec().unwrap()
}

fn reply(name: &str) -> Vec<u8> {
    let mut reply = message(name).into_response();
    reply.metadata.authoritative = true;
    let data = RData::A(A([192, 0, 2, 1].into()));
    reply.add_answer(Record::from_rdata(Name::from_ascii(name).unwrap(), TTL, data));
    reply.to_vec().unwrap()
}

/// A cache with one answer, and the servers that it is of.
fn cache_of(name: &str) -> (Cache, Arc<ResolvConf>) {
    let (cache, conf) = (Cache::default(), Arc::new(ResolvConf::parse("nameserver 10.0.0.1\n")));
    assert_eq!(cache.get(&query(name), Transport::Udp, &conf), None);
    cache.put(&query(name), Transport::Udp, &conf, &reply(name));
    (cache, conf)
}

/// The TTL of the one record, where the answer holds.
fn ttl(kept: Option<Cached>) -> Option<u32> {
    match kept? {
        Cached::Answer(bytes) => Some(Message::from_vec(&bytes).unwrap().answers[0].ttl),
        Cached::Stale(_) => None,
    }
}

#[tokio::test(start_paused = true)]
async fn answer_is_given_until_it_holds_no_more_with_the_time_that_is_left() {
    let (cache, conf) = cache_of("example.org.");
    advance(Duration::from_secs(20)).await;
    let query = query("EXAMPLE.org.");
    let Some(Cached::Answer(bytes)) = cache.get(&query, Transport::Udp, &conf) else {
        panic!("it is forgotten")
    };
    assert!(answers(&bytes, &query));
    let kept = Message::from_vec(&bytes).unwrap();
    assert_eq!(kept.queries[0].name.to_ascii(), "EXAMPLE.org.");
    assert!(!kept.metadata.authoritative);
    assert_eq!(kept.answers[0].ttl, TTL - 20);
    advance(Duration::from_secs(40)).await;
    assert!(matches!(
        cache.get(&query, Transport::Udp, &conf),
        Some(Cached::Stale(_))
    ));
}

#[tokio::test(start_paused = true)]
async fn old_answer_is_there_for_a_day_and_servers_that_fail_are_not_asked_again_at_once() {
    let (cache, conf) = cache_of("example.org.");
    let get = || cache.get(&query("example.org."), Transport::Udp, &conf);
    advance(Duration::from_secs(TTL.into())).await;
    assert!(matches!(get(), Some(Cached::Stale(_))));
    cache.failed(&query("example.org."), Transport::Udp);
    assert_eq!(ttl(get()), Some(STALE_TTL));
    advance(RECHECK).await;
    assert!(matches!(get(), Some(Cached::Stale(_))));
    cache.put(&query("example.org."), Transport::Udp, &conf, &reply("example.org."));
    assert_eq!(ttl(get()), Some(TTL));
    advance(Duration::from_secs(TTL.into()) + MAX_STALE).await;
    assert_eq!(get(), None);
}

#[tokio::test(start_paused = true)]
async fn answer_is_for_its_very_query_and_of_its_servers() {
    let (cache, conf) = cache_of("example.org.");
    let asked = query("example.org.");
    let get = |query: &[u8], transport| cache.get(query, transport, &conf);
    assert!(get(&asked, Transport::Udp).is_some());
    assert_eq!(get(&asked, Transport::Tcp), None);
    assert_eq!(get(&query("other.org."), Transport::Udp), None);
    // Checking disabled, another type, a second question, an option's bytes.
    for (place, byte) in [(3, 0x10), (asked.len() - 3, 28), (5, 2), (11, 1)] {
        let mut other = asked.clone();
        other[place] = byte;
        assert_eq!(get(&other, Transport::Udp), None, "{place}");
    }
    let same = Arc::new(conf.as_ref().clone());
    assert!(
        cache.get(&asked, Transport::Udp, &same).is_some(),
        "the file was only written again"
    );
    let other = Arc::new(ResolvConf::parse("nameserver 10.0.0.2\n"));
    assert_eq!(cache.get(&asked, Transport::Udp, &other), None);
    cache.put(&asked, Transport::Udp, &conf, &reply("example.org."));
    assert_eq!(
        cache.get(&asked, Transport::Udp, &other),
        None,
        "a late answer of the servers of before"
    );
}

#[test]
fn answers_to_other_questions_failures_and_ways_to_ask_are_not_kept() {
    let (cache, conf) = (Cache::default(), Arc::default());
    let put_and_get = |query: &[u8], reply: &[u8]| {
        cache.put(query, Transport::Udp, &conf, reply);
        cache.get(query, Transport::Udp, &conf)
    };
    assert_eq!(put_and_get(&query("a.org."), &reply("b.org.")), None);
    let mut failed = message("a.org.").into_response();
    failed.metadata.response_code = ResponseCode::ServFail;
    assert_eq!(put_and_get(&query("a.org."), &failed.to_vec().unwrap()), None);
    let (mut any, mut of_any) = (query("a.org."), reply("a.org."));
    let kind = any.len() - 3;
    (any[kind], of_any[kind]) = (255, 255);
    assert_eq!(put_and_get(&any, &of_any), None);
    assert!(put_and_get(&query("a.org."), &reply("a.org.")).is_some());
}

#[test]
fn room_is_bounded_and_what_is_used_stays() {
    let (cache, conf) = cache_of("used.org.");
    for number in 0..20_000 {
        let name = format!("n{number}.org.");
        cache.put(&query(&name), Transport::Udp, &conf, &reply(&name));
        assert!(
            cache.get(&query("used.org."), Transport::Udp, &conf).is_some(),
            "{number}"
        );
    }
    let generations = cache.generations();
    let room = |entries: &HashMap<Box<[u8]>, Entry>| -> usize {
        entries
            .iter()
            .map(|(key, entry)| key.len() + entry.reply.len() + ENTRY)
            .sum()
    };
    assert!(room(&generations.young) <= MAX_BYTES && room(&generations.old) <= MAX_BYTES);
    assert!(generations.young.len() + generations.old.len() > 2000);
}
