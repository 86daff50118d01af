//! The mesh's names, answered from a query as it came: no file, no allocation, and one look-up where the name is in the table.
//!
//! Takes queries in the form that resolver libraries send: one question for A or AAAA in class IN, a name of letters, digits,
//! `-` and `_`, and beside it nothing but an EDNS record without options. All others are [`super::message`]'s, which answers
//! these the same way too, as a test compares.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::RecordType;

use super::message::{DEFAULT_PAYLOAD, HEADER, OUR_PAYLOAD, TTL};
use super::table::{Found, Table};

/// Longest name, in bytes, written with dots and without the last one (RFC 1035, 3.1).
const MAX_NAME: usize = 253;
/// Longest label, in bytes; what is more is a pointer (RFC 1035, 4.1.4).
const MAX_LABEL: u8 = 63;
/// Bits of the header's third byte that a plain query may have: recursion desired (RFC 1035, 4.1.1).
const RECURSION_DESIRED: u8 = 0x01;
/// Bits of the header's fourth byte that a plain query may have: authentic data, checking disabled (RFC 4035, 3.2).
const AUTHENTIC_DATA: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;
/// A response, with authority; and one whose server can recurse.
const AUTHORITATIVE_RESPONSE: u8 = 0x84;
const RECURSION_AVAILABLE: u8 = 0x80;
/// Class IN, and the type of an EDNS record (RFC 6891, 6.1.2).
const IN: u16 = 1;
const OPT: u16 = 41;
/// Length of an EDNS record without options, in bytes.
const OPT_LENGTH: usize = 11;
/// The question's name, as a pointer to it (RFC 1035, 4.1.4).
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];

/// A plain query.
struct Query<'a> {
    header: &'a [u8],
    question: &'a [u8],
    kind: RecordType,
    /// Payload that the EDNS record names, in bytes.
    payload: Option<u16>,
}

/// A name's room: it is lower case and has no last dot.
struct Name {
    bytes: [u8; MAX_NAME],
    length: usize,
}

/// Writes into `reply`, whose room is used again and again, the answer over UDP to `packet`. False when the query isn't plain,
/// the table doesn't have its name, or the answer is too long for the client.
pub(super) fn answer(packet: &[u8], table: &Table, search: &[String], reply: &mut Vec<u8>) -> bool {
    let mut name = Name {
        bytes: [0; MAX_NAME],
        length: 0,
    };
    let Some(query) = read(packet, &mut name) else {
        return false;
    };
    let Some(found) = name.as_str().and_then(|name| table.lookup(name, query.kind, search)) else {
        return false;
    };
    reply.clear();
    match found {
        Found::V4(addresses) => query.write(addresses, Ipv4Addr::octets, reply),
        Found::V6(addresses) => query.write(addresses, Ipv6Addr::octets, reply),
        Found::Nothing => query.write(&[], Ipv4Addr::octets, reply),
    }
    let limit = query
        .payload
        .map_or(DEFAULT_PAYLOAD, |payload| usize::from(payload).max(DEFAULT_PAYLOAD));
    reply.len() <= limit
}

fn read<'a>(packet: &'a [u8], name: &mut Name) -> Option<Query<'a>> {
    let (header, rest) = packet.split_at_checked(HEADER)?;
    let (&[_, _, first, second], counts) = header.split_first_chunk::<4>()?;
    let additionals = match counts {
        [0, 1, 0, 0, 0, 0, 0, additionals @ 0..=1] => *additionals,
        _ => return None,
    };
    if first & !RECURSION_DESIRED != 0 || second & !(AUTHENTIC_DATA | CHECKING_DISABLED) != 0 {
        return None;
    }
    let (kind, rest) = name.read(rest)?.split_first_chunk::<4>()?;
    let question = packet.get(HEADER..packet.len() - rest.len())?;
    let kind = match *kind {
        [0, 1, 0, 1] => RecordType::A,
        [0, 28, 0, 1] => RecordType::AAAA,
        _ => return None,
    };
    let payload = match (additionals, rest) {
        (0, []) => None,
        // Root, type, payload, extended code and version 0, flags, no options.
        (1, [0, 0, 41, high, low, 0, 0, _, _, 0, 0]) => Some(u16::from_be_bytes([*high, *low])),
        _ => return None,
    };
    Some(Query {
        header,
        question,
        kind,
        payload,
    })
}

impl Name {
    /// Reads a name of at least one label; returns what follows it.
    fn read<'a>(&mut self, mut rest: &'a [u8]) -> Option<&'a [u8]> {
        loop {
            let (&length, after) = rest.split_first()?;
            match length {
                0 if self.length > 0 => return Some(after),
                1..=MAX_LABEL => {}
                _ => return None,
            }
            let (label, after) = after.split_at_checked(length.into())?;
            if self.length > 0 {
                self.push(b'.')?;
            }
            for byte in label {
                if !(byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
                    return None;
                }
                self.push(byte.to_ascii_lowercase())?;
            }
            rest = after;
        }
    }

    fn push(&mut self, byte: u8) -> Option<()> {
        *self.bytes.get_mut(self.length)? = byte;
        self.length += 1;
        Some(())
    }

    fn as_str(&self) -> Option<&str> {
        str::from_utf8(self.bytes.get(..self.length)?).ok()
    }
}

impl Query<'_> {
    /// The answer with these addresses, any of them first.
    fn write<A: Copy, const N: usize>(&self, addresses: &[A], octets: impl Fn(&A) -> [u8; N], reply: &mut Vec<u8>) {
        let &[id_high, id_low, first, second, ..] = self.header else {
            return;
        };
        // More than fit are too long in any case.
        let count = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
        reply.extend([id_high, id_low]);
        reply.push(AUTHORITATIVE_RESPONSE | first);
        reply.push(RECURSION_AVAILABLE | second & CHECKING_DISABLED);
        reply.extend([0, 1]);
        reply.extend(count.to_be_bytes());
        reply.extend([0, 0, 0, u8::from(self.payload.is_some())]);
        reply.extend(self.question);
        let from = if addresses.len() > 1 {
            fastrand::usize(..addresses.len())
        } else {
            0
        };
        let (last, first) = addresses.split_at(from);
        for address in first.iter().chain(last) {
            reply.extend(QUESTION_NAME);
            reply.extend(u16::from(self.kind).to_be_bytes());
            reply.extend(IN.to_be_bytes());
            reply.extend(TTL.to_be_bytes());
            reply.extend((N as u16).to_be_bytes());
            reply.extend(octets(address));
        }
        if self.payload.is_some() {
            let mut record = [0; OPT_LENGTH];
            record[1..3].copy_from_slice(&OPT.to_be_bytes());
            record[3..5].copy_from_slice(&OUR_PAYLOAD.to_be_bytes());
            reply.extend(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::Message;
    use proptest::prelude::*;

    use super::super::message::{self, Packet, Transport};
    use super::*;
    use crate::facts::{NameInfo, NameTable};

    fn table(addresses: usize) -> Table {
        let v4 = (0..addresses).map(|n| Ipv4Addr::from(0x0a00_0001 + n as u32).into());
        let info = NameInfo {
            ips: v4
                .chain((0..addresses).map(|n| Ipv6Addr::from(0xfd_u128 << 120 | n as u128).into()))
                .collect(),
            registry: "Kubernetes".to_owned(),
            shortname: "cart".to_owned(),
            namespace: "shop".to_owned(),
        };
        let names = ["cart.shop.svc.cluster.local", "*.example.com"].map(|name| (name.to_owned(), info.clone()));
        Table::new(&NameTable { names: names.into() }, "shop")
    }

    /// A query by hand: what follows the question is `rest`.
    fn query(name: &str, kind: u8, flags: [u8; 2], rest: &[u8]) -> Vec<u8> {
        let mut packet = vec![
            7,
            9,
            flags[0],
            flags[1],
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(!rest.is_empty()),
        ];
        for label in name.split('.') {
            packet.push(label.len() as u8);
            packet.extend(label.as_bytes());
        }
        packet.extend([0, 0, kind, 0, 1]);
        packet.extend(rest);
        packet
    }

    const EDNS: [u8; OPT_LENGTH] = [0, 0, 41, 5, 0xc0, 0, 0, 0x80, 0, 0, 0];

    /// Both answers, the records of each in order; `None` where the fast path has none.
    fn both(packet: &[u8], addresses: usize) -> Option<[Message; 2]> {
        let (table, search) = (table(addresses), ["c.proj.internal".to_owned()]);
        let mut fast = Vec::new();
        if !answer(packet, &table, &search, &mut fast) {
            return None;
        }
        let Packet::Question(question) = message::read(packet) else {
            panic!("the fast path takes what is no question: {packet:?}")
        };
        let found = table.lookup(
            &question.name().to_ascii_lowercase(),
            question.query.query_type,
            &search,
        );
        let slow = question
            .answer(&found.expect("both have the name").to_vec(), Transport::Udp)
            .unwrap();
        assert_eq!(fast.len(), slow.len());
        Some([fast, slow].map(|bytes| {
            let mut message = Message::from_vec(&bytes).unwrap();
            message.answers.sort_by_key(|record| record.data.to_string());
            message
        }))
    }

    #[test]
    fn plain_queries_are_answered_as_the_slow_path_does() {
        for (name, rest) in [
            ("cart", &[][..]),
            ("Cart.Shop.svc", &EDNS),
            ("a_b-1.example.com", &[]),
            ("cart.c.proj.internal", &EDNS),
        ] {
            for (kind, flags, addresses) in [
                (1, [1, 0], 1),
                (28, [0, 0x20], 3),
                (1, [1, 0x30], 0),
                (1, [1, 0x10], 12),
            ] {
                let [fast, slow] = both(&query(name, kind, flags, rest), addresses).unwrap_or_else(|| panic!("{name}"));
                assert_eq!(fast, slow, "{name} {kind} {flags:?}");
                assert_eq!(fast.answers.len(), addresses);
            }
        }
    }

    #[test]
    fn queries_that_are_not_plain_are_left_to_the_slow_path() {
        let mut option = EDNS.to_vec();
        option[10] = 4;
        option.extend([0, 10, 0, 0]);
        let plain = query("cart", 1, [1, 0], &[]);
        let pointer = [&plain[..HEADER], &[0xc0, 12, 0, 1, 0, 1]].concat();
        let cases = [
            query("cart", 16, [1, 0], &[]),
            query("other.org", 1, [1, 0], &[]),
            query("c*rt", 1, [1, 0], &[]),
            query("cart", 1, [0x81, 0], &[]),
            query("cart", 1, [0x09, 0], &[]),
            query("cart", 1, [1, 0x40], &[]),
            query("cart", 1, [1, 0], &option),
            query("cart", 1, [1, 0], &[0; 11]),
            [plain.as_slice(), &[0]].concat(),
            pointer,
            plain[..plain.len() - 1].to_vec(),
            query("", 1, [1, 0], &[]),
            query(&vec!["a".repeat(63); 5].join("."), 1, [1, 0], &[]),
        ];
        for packet in cases {
            assert!(!answer(&packet, &table(1), &[], &mut Vec::new()), "{packet:?}");
        }
        assert!(
            both(&query("cart", 1, [1, 0], &[]), 40).is_none(),
            "the answer has more than 512 bytes"
        );
        assert!(both(&query("cart", 1, [1, 0], &EDNS), 40).is_some());
    }

    #[test]
    fn any_address_comes_first() {
        let (mut reply, table) = (Vec::new(), table(4));
        let packet = query("cart", 1, [1, 0], &[]);
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            assert!(answer(&packet, &table, &[], &mut reply));
            seen.insert(Message::from_vec(&reply).unwrap().answers[0].data.to_string());
        }
        assert_eq!(seen.len(), 4);
    }

    proptest! {
        #[test]
        fn packet_that_differs_anywhere_is_answered_as_the_slow_path_does(at in 0usize..60, byte in any::<u8>(), edns in any::<bool>()) {
            let mut packet = query("Cart.shop.svc.cluster.local", 1, [1, 0], if edns { &EDNS } else { &[] });
            let at = at % packet.len();
            packet[at] = byte;
            if let Some([fast, slow]) = both(&packet, 2) {
                prop_assert_eq!(fast, slow);
            }
        }
    }
}
