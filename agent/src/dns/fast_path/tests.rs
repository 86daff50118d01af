//! Answers of the fast path, beside those of the slow one.

use hickory_proto::op::Message;
use proptest::prelude::*;

use super::*;
use crate::dns::message::{self, Packet, Transport};
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
        .answer(found.expect("both have the name").records(), Transport::Udp)
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
fn answer_begins_with_any_of_the_addresses() {
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
