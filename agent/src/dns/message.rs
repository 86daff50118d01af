//! DNS messages: the parts of a query that concern us, and the replies that we make ourselves.

use hickory_proto::op::{Edns, Header, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, RData, Record};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

/// Time to live of our own answers, in seconds (istio/pkg/dns/client, defaultTTLInSeconds).
pub(super) const TTL: u32 = 30;
/// Length of a message's header, in bytes.
pub(super) const HEADER: usize = 12;
/// The bit of the header's third byte by which a server speaks for its zone (RFC 1035, 4.1.1).
pub(super) const AUTHORITATIVE: u8 = 0x04;
/// Longest answer over UDP, in bytes, where the query names no size (RFC 1035, 4.2.1).
pub(super) const DEFAULT_PAYLOAD: usize = 512;
/// Longest message over UDP that we take, in bytes, as we tell in EDNS.
pub(super) const OUR_PAYLOAD: u16 = 4096;
/// Version of EDNS that we speak (RFC 6891, 6.1.3).
const EDNS_VERSION: u8 = 0;
/// Most records beside the question that a query has use for: EDNS, a signature, the SOA of a transfer. Reading more would
/// cost more than asking.
const MAX_RECORDS: u16 = 8;

/// Transport by which a message came, and by which it is answered and forwarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// A packet from a client.
#[derive(Debug)]
pub(super) enum Packet {
    /// One question in class IN.
    Question(Box<Question>),
    /// Another kind of query that an upstream server may understand: an update, another class.
    Unsupported(Metadata),
    /// A query with a header and no readable question.
    Malformed(Metadata),
    /// No query, so that there is nobody to answer.
    Noise,
}

/// The question of a query.
#[derive(Debug)]
pub(super) struct Question {
    metadata: Metadata,
    pub(super) query: Query,
    /// Present when the query has an EDNS record, which the answer then must have too.
    edns: Option<Edns>,
}

/// Reads a packet, no further than it concerns us: an option that we don't know is the upstream's business.
pub(super) fn read(packet: &[u8]) -> Packet {
    let mut decoder = BinDecoder::new(packet);
    let Ok(header) = Header::read(&mut decoder) else {
        return Packet::Noise;
    };
    let metadata = header.metadata;
    match (metadata.message_type, metadata.op_code) {
        (MessageType::Response, _) => return Packet::Noise,
        (MessageType::Query, OpCode::Query) => {}
        (MessageType::Query, _) => return Packet::Unsupported(metadata),
    }
    let counts = header.counts;
    let records = [counts.answers, counts.authorities, counts.additionals];
    if counts.queries != 1 || records.iter().any(|records| *records > MAX_RECORDS) {
        return Packet::Malformed(metadata);
    }
    match Query::read(&mut decoder) {
        Ok(query) if query.query_class == DNSClass::IN => Packet::Question(Box::new(Question {
            metadata,
            query,
            edns: Message::from_vec(packet).ok().and_then(|message| message.edns),
        })),
        Ok(_) => Packet::Unsupported(metadata),
        Err(_) => Packet::Malformed(metadata),
    }
}

impl Question {
    /// The name without its last dot.
    pub(super) fn name(&self) -> String {
        let mut name = self.query.name.to_ascii();
        if name.ends_with('.') {
            name.pop();
        }
        name
    }

    /// An authoritative answer of these records of the question's name, to an EDNS of our version. Over UDP one that is too long for the client says so
    /// and holds nothing, so that the client asks again over TCP.
    pub(super) fn answer(&self, records: Vec<RData>, transport: Transport) -> Option<Vec<u8>> {
        if self.edns.as_ref().is_some_and(|edns| edns.version() > EDNS_VERSION) {
            return self.failure(ResponseCode::BADVERS);
        }
        let mut message = self.reply();
        message.metadata.authoritative = true;
        let name = &self.query.name;
        message.add_answers(
            records
                .into_iter()
                .map(|data| Record::from_rdata(name.clone(), TTL, data)),
        );
        let bytes = message.to_vec().ok()?;
        let limit = match (transport, &self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, Some(edns)) => usize::from(edns.max_payload()).max(DEFAULT_PAYLOAD),
            (Transport::Udp, None) => DEFAULT_PAYLOAD,
        };
        if bytes.len() <= limit {
            return Some(bytes);
        }
        message.truncate().to_vec().ok()
    }

    /// An answer that is only a code.
    pub(super) fn failure(&self, code: ResponseCode) -> Option<Vec<u8>> {
        let mut message = self.reply();
        message.metadata.response_code = code;
        message.to_vec().ok()
    }

    fn reply(&self) -> Message {
        let mut message = Message::response(self.metadata.id, OpCode::Query);
        message.metadata = Metadata::response_from_request(&self.metadata);
        message.metadata.recursion_available = true;
        message.add_query(self.query.clone());
        if let Some(asked) = &self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(OUR_PAYLOAD);
            // To be copied (RFC 3225, 3).
            edns.set_dnssec_ok(asked.flags().dnssec_ok);
            message.set_edns(edns);
        }
        message
    }
}

/// A reply to a query whose question can't be repeated.
pub(super) fn bare_failure(metadata: &Metadata, code: ResponseCode) -> Option<Vec<u8>> {
    let mut message = Message::error_msg(metadata.id, metadata.op_code, code);
    message.metadata.recursion_desired = metadata.recursion_desired;
    message.to_vec().ok()
}

/// True when `reply` can be the answer to `query`: same id, a response, and to the same question. One that repeats no
/// question, as of a server that couldn't read it, may say that it failed and nothing else. Guards against strangers'
/// guesses and late answers of an earlier query.
pub(super) fn answers(reply: &[u8], query: &[u8]) -> bool {
    let (Some(reply_head), Some(query_head)) = (reply.get(..HEADER), query.get(..HEADER)) else {
        return false;
    };
    let is_response = reply_head.get(2).is_some_and(|flags| flags & 0x80 != 0);
    if reply_head.get(..2) != query_head.get(..2) || !is_response {
        return false;
    }
    match (question(reply), question(query)) {
        (Some(Some(reply)), Some(Some(query))) => reply == query,
        (Some(None), Some(None)) => true,
        // We can't read it either.
        (Some(None), _) | (None, None) => code(reply).is_some_and(is_failure),
        _ => false,
    }
}

/// The one question, or `Some(None)` when there is none; `None` when it can't be read.
fn question(message: &[u8]) -> Option<Option<Query>> {
    let mut decoder = BinDecoder::new(message);
    match Header::read(&mut decoder).ok()?.counts.queries {
        0 => Some(None),
        1 => Query::read(&mut decoder).ok().map(Some),
        _ => None,
    }
}

/// True when a code says that the server could not answer, or would not; and so nothing about the name.
fn is_failure(code: ResponseCode) -> bool {
    matches!(
        code,
        ResponseCode::FormErr | ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused
    )
}

/// The reply's code, the low four bits that the header holds.
pub(super) fn code(reply: &[u8]) -> Option<ResponseCode> {
    reply.get(3).map(|flags| ResponseCode::from(0, flags & 0x0f))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use hickory_proto::rr::{Name, RecordType};
    use proptest::prelude::*;

    use super::*;

    fn query(name: &str, payload: Option<u16>) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        if let Some(payload) = payload {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            message.set_edns(edns);
        }
        message.to_vec().unwrap()
    }

    fn question(packet: &[u8]) -> Question {
        match read(packet) {
            Packet::Question(question) => *question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn answer_repeats_the_question_and_is_authoritative() {
        let question = question(&query("Cart.shop.", None));
        assert_eq!(question.name(), "Cart.shop");
        let ips = ["10.0.0.1", "fd00::1"].map(|ip| RData::from(ip.parse::<IpAddr>().unwrap()));
        let message = Message::from_vec(&question.answer(ips.to_vec(), Transport::Udp).unwrap()).unwrap();
        let head = message.metadata;
        assert_eq!(
            (head.id, head.message_type, head.authoritative),
            (7, MessageType::Response, true)
        );
        assert!(head.recursion_desired && head.recursion_available && message.edns.is_none());
        assert_eq!(message.queries[0].name.to_ascii(), "Cart.shop.");
        let ttl_and_data: Vec<(u32, String)> = message.answers.iter().map(|r| (r.ttl, r.data.to_string())).collect();
        assert_eq!(ttl_and_data, [(30, "10.0.0.1".to_owned()), (30, "fd00::1".to_owned())]);
    }

    #[test]
    fn answer_is_cut_to_the_length_that_the_client_takes() {
        let ips = vec![RData::from(IpAddr::from([10, 0, 0, 1])); 100];
        let cases = [
            (None, Transport::Udp, true),
            (Some(512), Transport::Udp, true),
            (Some(4096), Transport::Udp, false),
            (None, Transport::Tcp, false),
        ];
        for (payload, transport, cut) in cases {
            let bytes = question(&query("a.", payload)).answer(ips.clone(), transport).unwrap();
            let message = Message::from_vec(&bytes).unwrap();
            assert_eq!(message.metadata.truncation, cut, "{payload:?} {transport:?}");
            assert_eq!(message.answers.is_empty(), cut);
            assert_eq!(message.edns.is_some(), payload.is_some());
            assert!(!cut || bytes.len() <= 512);
        }
    }

    #[test]
    fn edns_of_a_later_version_is_told_ours_and_dnssec_ok_is_copied() {
        let mut packet = query("a.", Some(1232));
        let flags = packet.len() - 4;
        packet[flags] |= 0x80;
        let answer = |packet: &[u8]| {
            let bytes = question(packet).answer(Vec::new(), Transport::Udp).unwrap();
            Message::from_vec(&bytes).unwrap()
        };
        let (plain, dnssec) = (answer(&query("a.", Some(1232))), answer(&packet));
        let is_ok = |message: &Message| message.edns.as_ref().unwrap().flags().dnssec_ok;
        assert!(!is_ok(&plain) && is_ok(&dnssec));
        packet[flags - 1] = 1;
        let refused = answer(&packet);
        // Its number is BADSIG's, too.
        let code = u16::from(refused.metadata.response_code);
        assert_eq!(code, u16::from(ResponseCode::BADVERS));
        assert_eq!(refused.edns.unwrap().version(), EDNS_VERSION);
    }

    #[test]
    fn packets_that_are_no_question_are_told_apart() {
        let good = query("a.", None);
        let mut response = good.clone();
        response[2] |= 0x80;
        let mut update = good.clone();
        update[2] |= 5 << 3;
        let mut two = good.clone();
        two[5] = 2;
        let mut chaos = good.clone();
        let class = chaos.len() - 1;
        chaos[class] = 3;
        assert!(matches!(read(&good[..HEADER - 1]), Packet::Noise));
        assert!(matches!(read(&response), Packet::Noise));
        assert!(matches!(read(&update), Packet::Unsupported(_)));
        assert!(matches!(read(&chaos), Packet::Unsupported(_)));
        assert!(matches!(read(&two), Packet::Malformed(_)));
        assert!(matches!(read(&good[..good.len() - 1]), Packet::Malformed(_)));
    }

    #[test]
    fn reply_must_be_to_this_query() {
        let sent = query("a.", None);
        let reply = question(&sent).failure(ResponseCode::ServFail).unwrap();
        assert!(answers(&reply, &sent));
        assert_eq!(code(&reply), Some(ResponseCode::ServFail));
        let mut other_id = reply;
        other_id[0] ^= 1;
        let other_question = question(&query("b.", None)).failure(ResponseCode::NoError).unwrap();
        for wrong in [&other_id, &other_question, &sent, &Vec::new()] {
            assert!(!answers(wrong, &sent), "{wrong:?}");
        }
        let Packet::Question(question) = read(&sent) else {
            panic!()
        };
        for (code, is_one) in [
            (ResponseCode::FormErr, true),
            (ResponseCode::ServFail, true),
            (ResponseCode::NotImp, true),
            (ResponseCode::Refused, true),
            (ResponseCode::NoError, false),
            (ResponseCode::NXDomain, false),
        ] {
            let bare = bare_failure(&question.metadata, code).unwrap();
            assert_eq!(answers(&bare, &sent), is_one, "{code}");
        }
    }

    #[test]
    fn query_that_would_cost_more_than_it_asks_is_not_read() {
        // Names that are pointers to pointers: 10,000 records in a packet of TCP, each a long way to its end.
        let mut packet = query("a.", None);
        packet[10..12].copy_from_slice(&10_000_u16.to_be_bytes());
        packet.resize(usize::from(u16::MAX), 0xc0);
        assert!(matches!(read(&packet), Packet::Malformed(_)));
        let mut many = query("a.", None);
        many[4] = 0xff;
        assert!(matches!(read(&many), Packet::Malformed(_)));
        assert!(!answers(&many, &many));
    }

    proptest! {
        #[test]
        fn packet_of_any_bytes_makes_no_panic(noise in any::<Vec<u8>>(), at in 0usize..40, byte in any::<u8>()) {
            let mut packet = query("cart.shop.svc.cluster.local.", Some(1232));
            let at = at % packet.len();
            packet[at] = byte;
            for packet in [&noise, &packet] {
                if let Packet::Question(question) = read(packet) {
                    let _ = question.name();
                    let _ = question.answer(vec![IpAddr::from([10, 0, 0, 1]).into()], Transport::Udp);
                    let _ = question.failure(ResponseCode::ServFail);
                }
                let _ = (answers(packet, &noise), answers(&noise, packet), code(packet));
            }
        }
    }
}
