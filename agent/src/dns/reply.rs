//! Bytes of an upstream's reply that say how long it holds. Nothing else of it is read, so that what is kept is given as it
//! came.

use std::time::Duration;

use hickory_proto::op::ResponseCode;

use super::message::{HEADER, code};

/// Longest time that an answer holds, whatever its records say (RFC 8767, 4, leaves it to the resolver): who moves a service
/// must not wait for a week.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest time that "there is none" holds (RFC 2308, 5).
const MAX_NEGATIVE_LIFE: Duration = Duration::from_secs(3 * 60 * 60);
/// The bit of the header's third byte that says that the reply is not whole (RFC 1035, 4.1.1).
const TRUNCATED: u8 = 0x02;
const SOA: [u8; 2] = [0, 6];
const OPT: [u8; 2] = [0, 41];

/// Time for which a reply holds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Lifetime {
    /// Time from its arrival.
    pub(super) holds: Duration,
    /// Places of its records' TTLs of four bytes each, counted in bytes from the message's beginning.
    pub(super) ttls: Vec<u16>,
}

/// One record, as far as it concerns us.
struct Record<'a> {
    kind: [u8; 2],
    /// Place of its TTL.
    place: usize,
    ttl: u32,
    data: &'a [u8],
}

/// The time for which a reply may be given again; `None` for one that says nothing about a name, is damaged or is to be
/// forgotten at once.
pub(super) fn lifetime(reply: &[u8]) -> Option<Lifetime> {
    let is_denied = match code(reply)? {
        ResponseCode::NoError => false,
        ResponseCode::NXDomain => true,
        _ => return None,
    };
    let &[_, _, flags, _, q, u, a, n, s, t, d, r] = reply.first_chunk::<HEADER>()?;
    let [questions, answers, authorities, additionals] =
        [[q, u], [a, n], [s, t], [d, r]].map(|count| usize::from(u16::from_be_bytes(count)));
    if flags & TRUNCATED != 0 || questions != 1 {
        return None;
    }
    let mut at = name_end(reply, HEADER)?.0 + 4;
    let (mut shortest, mut ttls) = (u32::MAX, Vec::new());
    let mut is_denial_dated = false;
    for number in 0..answers + authorities + additionals {
        let record = record(reply, at)?;
        at = record.place + 6 + record.data.len();
        if record.kind == OPT {
            continue;
        }
        shortest = shortest.min(record.ttl);
        ttls.push(u16::try_from(record.place).ok()?);
        if record.kind == SOA && (answers..answers + authorities).contains(&number) {
            is_denial_dated = true;
            // The last of its numbers is the TTL of what isn't there (RFC 2308, 4).
            shortest = shortest.min(u32::from_be_bytes(*record.data.last_chunk()?));
        }
    }
    // Without a date a denial is not kept (RFC 2308, 5).
    let is_negative = is_denied || answers == 0 || is_denial_dated;
    if is_negative && !is_denial_dated || shortest == 0 || ttls.is_empty() {
        return None;
    }
    let longest = if is_negative { MAX_NEGATIVE_LIFE } else { MAX_LIFE };
    Some(Lifetime {
        holds: Duration::from_secs(shortest.into()).min(longest),
        ttls,
    })
}

fn record(message: &[u8], at: usize) -> Option<Record<'_>> {
    let (name_end, _) = name_end(message, at)?;
    let rest = message.get(name_end..)?;
    let (&[k, i, _, _, t, t1, t2, t3, high, low], rest) = rest.split_first_chunk::<10>()?;
    Some(Record {
        kind: [k, i],
        place: name_end + 4,
        // One with the highest bit is none (RFC 2181, 8).
        ttl: i32::from_be_bytes([t, t1, t2, t3]).try_into().unwrap_or(0),
        data: rest.get(..usize::from(u16::from_be_bytes([high, low])))?,
    })
}

/// The end of the name at a place, and whether it ends in a pointer (RFC 1035, 4.1.4), which is not followed.
pub(super) fn name_end(message: &[u8], mut at: usize) -> Option<(usize, bool)> {
    loop {
        let length = *message.get(at)?;
        match length {
            0 => return Some((at + 1, false)),
            1..=0x3f => at += 1 + usize::from(length),
            0xc0.. => return Some((at + 2, true)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::{A, CNAME, SOA};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    fn name() -> Name {
        Name::from_ascii("a.example.org.").unwrap()
    }

    fn reply(code: ResponseCode) -> Message {
        let mut message = Message::new(7, MessageType::Response, OpCode::Query);
        message.metadata.response_code = code;
        message.add_query(Query::query(name(), RecordType::A));
        message.set_edns(Edns::new());
        message
    }

    fn address(ttl: u32) -> Record {
        Record::from_rdata(name(), ttl, RData::A(A([192, 0, 2, 1].into())))
    }

    fn soa(ttl: u32, minimum: u32) -> Record {
        let data = SOA::new(name(), name(), 1, 2, 3, 4, minimum);
        Record::from_rdata(Name::from_ascii("org.").unwrap(), ttl, RData::SOA(data))
    }

    /// Seconds for which it holds.
    fn holds(message: &Message) -> Option<u64> {
        Some(lifetime(&message.to_vec().unwrap())?.holds.as_secs())
    }

    #[test]
    fn answer_holds_as_long_as_the_first_of_its_records_and_a_day_at_most() {
        let mut message = reply(ResponseCode::NoError);
        message.add_answer(Record::from_rdata(name(), 300, RData::CNAME(CNAME(name()))));
        message.add_answer(address(60));
        assert_eq!(holds(&message), Some(60));
        let bytes = message.to_vec().unwrap();
        let ttls = lifetime(&bytes).unwrap().ttls;
        let told: Vec<u32> = ttls
            .iter()
            .map(|place| u32::from_be_bytes(*bytes[usize::from(*place)..].first_chunk().unwrap()))
            .collect();
        assert_eq!(told, [300, 60], "EDNS has no TTL");
        for (ttl, wanted) in [(0, None), (1 << 31, None), (1 << 30, Some(86_400))] {
            let mut message = reply(ResponseCode::NoError);
            message.add_answer(address(ttl));
            assert_eq!(holds(&message), wanted, "{ttl}");
        }
    }

    #[test]
    fn denial_holds_as_long_as_its_zone_says_and_three_hours_at_most() {
        for code in [ResponseCode::NoError, ResponseCode::NXDomain] {
            let mut message = reply(code);
            assert_eq!(holds(&message), None, "{code}: nobody says for how long");
            message.add_authority(soa(900, 300));
            assert_eq!(holds(&message), Some(300), "{code}");
            let mut message = reply(code);
            message.add_authority(soa(1 << 20, 1 << 20));
            assert_eq!(holds(&message), Some(3 * 60 * 60), "{code}");
        }
    }

    #[test]
    fn failures_and_what_is_cut_or_damaged_are_not_kept() {
        for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::FormErr] {
            let mut message = reply(code);
            message.add_answer(address(60));
            assert_eq!(holds(&message), None, "{code}");
        }
        let mut message = reply(ResponseCode::NoError);
        message.add_answer(address(60));
        let bytes = message.to_vec().unwrap();
        for length in 0..bytes.len() {
            assert_eq!(lifetime(&bytes[..length]), None, "{length}");
        }
        message.metadata.truncation = true;
        assert_eq!(holds(&message), None);
    }
}
