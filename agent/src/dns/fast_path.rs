//! The mesh's names, answered from a query as it came: no file, no allocation, and one look-up where the name is in the table.
//!
//! Takes queries in the form that resolver libraries send: one question for A or AAAA in class IN, a name of letters, digits,
//! `-` and `_`, and beside it nothing but an EDNS record without options. All others are [`super::message`]'s, which answers
//! these the same way too, as a test compares.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::RecordType;

use super::message::{AUTHORITATIVE, DEFAULT_PAYLOAD, HEADER, OUR_PAYLOAD, TTL};
use super::table::{Lookup, Table};

/// Longest name, in bytes, written with dots and without the last one (RFC 1035, 3.1).
const MAX_NAME: usize = 253;
/// Longest label, in bytes; what is more is a pointer (RFC 1035, 4.1.4).
const MAX_LABEL: u8 = 63;
/// Bits of the header's third byte that a plain query may have: recursion desired (RFC 1035, 4.1.1).
const RECURSION_DESIRED: u8 = 0x01;
/// Bits of the header's fourth byte that a plain query may have: authentic data, checking disabled (RFC 4035, 3.2).
const AUTHENTIC_DATA: u8 = 0x20;
const CHECKING_DISABLED: u8 = 0x10;
/// A response, and one whose server can recurse (RFC 1035, 4.1.1).
const RESPONSE: u8 = 0x80;
const RECURSION_AVAILABLE: u8 = 0x80;
/// Class IN, and the type of an EDNS record (RFC 6891, 6.1.2).
const IN: u16 = 1;
const OPT: u16 = 41;
/// Bit of an EDNS record's flags that an answer repeats (RFC 3225, 3).
const DNSSEC_OK: u8 = 0x80;
/// Length of an EDNS record without options, in bytes.
const OPT_LENGTH: usize = 11;
/// The question's name, as a pointer to it (RFC 1035, 4.1.4).
const QUESTION_NAME: [u8; 2] = [0xc0, HEADER as u8];

/// A plain query.
struct Query<'a> {
    id: [u8; 2],
    /// The header's third and fourth bytes.
    flags: [u8; 2],
    question: &'a [u8],
    kind: RecordType,
    edns: Option<Edns>,
}

/// Fields of an EDNS record.
#[derive(Clone, Copy)]
struct Edns {
    /// Longest answer that the client takes, in bytes.
    payload: u16,
    /// `DNSSEC_OK` or nothing.
    flags: u8,
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
        Lookup::V4(addresses) => query.write(addresses, Ipv4Addr::octets, reply),
        Lookup::V6(addresses) => query.write(addresses, Ipv6Addr::octets, reply),
        Lookup::Name(_) | Lookup::Nothing => query.write(&[], Ipv4Addr::octets, reply),
    }
    let limit = query
        .edns
        .map_or(DEFAULT_PAYLOAD, |edns| usize::from(edns.payload).max(DEFAULT_PAYLOAD));
    reply.len() <= limit
}

fn read<'a>(packet: &'a [u8], name: &mut Name) -> Option<Query<'a>> {
    let (header, rest) = packet.split_at_checked(HEADER)?;
    let (&[id_high, id_low, first, second], counts) = header.split_first_chunk::<4>()?;
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
    let edns = match (additionals, rest) {
        (0, []) => None,
        // Root, type, payload, extended code and version 0, flags, no options.
        (1, [0, 0, 41, high, low, 0, 0, flags, _, 0, 0]) => Some(Edns {
            payload: u16::from_be_bytes([*high, *low]),
            flags: flags & DNSSEC_OK,
        }),
        _ => return None,
    };
    Some(Query {
        id: [id_high, id_low],
        flags: [first, second],
        question,
        kind,
        edns,
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
        let [first, second] = self.flags;
        // More than fit are too long in any case.
        let count = u16::try_from(addresses.len()).unwrap_or(u16::MAX);
        reply.extend(self.id);
        reply.push(RESPONSE | AUTHORITATIVE | first);
        reply.push(RECURSION_AVAILABLE | second & CHECKING_DISABLED);
        reply.extend([0, 1]);
        reply.extend(count.to_be_bytes());
        reply.extend([0, 0, 0, u8::from(self.edns.is_some())]);
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
        if let Some(edns) = self.edns {
            let mut record = [0; OPT_LENGTH];
            record[1..3].copy_from_slice(&OPT.to_be_bytes());
            record[3..5].copy_from_slice(&OUR_PAYLOAD.to_be_bytes());
            record[7] = edns.flags;
            reply.extend(record);
        }
    }
}

#[cfg(test)]
mod tests;
