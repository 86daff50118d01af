//! Answers of the VM's own servers, kept for as long as their records say, and given beyond that while no server answers
//! (RFC 8767): the VM's names outlive its name servers.
//!
//! An answer is kept for the very query that it is to, EDNS and flags included, and nothing of it is taken for another name.
//! So no server can tell us of a name that it wasn't asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::message::{AUTHORITATIVE, HEADER, Transport};
use super::reply::{Lifetime, lifetime, name_end};
use crate::host::ResolvConf;

/// Room of each of the two generations, in bytes: some 2,000 answers.
const MAX_BYTES: usize = 512 << 10;
/// Longest answer that is kept, in bytes.
const MAX_REPLY: usize = 4096;
/// Bytes that an entry takes beside its own.
const ENTRY: usize = 128;
/// Time for which an answer is given that doesn't hold any more, while no server answers (RFC 8767, 5: one to three days).
const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// TTL of such an answer, in seconds (RFC 8767, 5.2).
const STALE_TTL: u32 = 30;
/// Time for which no server is asked again about such an answer (RFC 8767, 5.2).
const RECHECK: Duration = Duration::from_secs(30);
/// Types from here on are no records but ways to ask (RFC 6895, 3.1).
const QUESTIONS_ONLY: [u8; 2] = [0, 128];

/// Answers, each by its query.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Generations>);

/// Entries by their use: a used one is young. Once the young fill their room, the old go, and the young are old.
#[derive(Debug, Default)]
struct Generations {
    /// The servers whose answers these are. Others may know other names.
    of: Arc<ResolvConf>,
    young: HashMap<Box<[u8]>, Entry>,
    /// Bytes that the young take.
    bytes: usize,
    old: HashMap<Box<[u8]>, Entry>,
}

#[derive(Debug)]
struct Entry {
    reply: Box<[u8]>,
    lifetime: Lifetime,
    arrived: Instant,
    /// Time before which no server is asked again.
    recheck: Instant,
}

/// An answer out of the cache.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Cached {
    /// An answer that holds, or than which there is no use in asking for another.
    Answer(Vec<u8>),
    /// An answer to be given when no server answers.
    Stale(Vec<u8>),
}

impl Cache {
    /// The answer to `query`. `conf`: the servers that would be asked; another one than before empties the cache.
    pub(super) fn get(&self, query: &[u8], transport: Transport, conf: &Arc<ResolvConf>) -> Option<Cached> {
        let key = key(query, transport)?;
        let mut generations = self.generations();
        generations.follow(conf);
        generations.entry(&key)?.answer(query, Instant::now())
    }

    /// Keeps the answer of `conf`'s servers, where it is one to keep.
    pub(super) fn put(&self, query: &[u8], transport: Transport, conf: &ResolvConf, reply: &[u8]) {
        let Some(key) = key(query, transport) else { return };
        let lifetime = match lifetime(reply) {
            Some(lifetime) if reply.len() <= MAX_REPLY && has_question_of(reply, query) => lifetime,
            _ => return,
        };
        let mut generations = self.generations();
        // Asked before there were other servers.
        if *generations.of != *conf {
            return;
        }
        let now = Instant::now();
        let entry = Entry {
            reply: reply.into(),
            recheck: now + lifetime.holds,
            lifetime,
            arrived: now,
        };
        generations.old.remove(&*key);
        generations.insert(key, entry);
    }

    /// No server had a better answer than the one that is kept, and none is asked again for a while.
    pub(super) fn failed(&self, query: &[u8], transport: Transport) {
        let Some(key) = key(query, transport) else { return };
        if let Some(entry) = self.generations().entry(&key) {
            entry.recheck = entry.recheck.max(Instant::now() + RECHECK);
        }
    }

    fn generations(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn follow(&mut self, conf: &Arc<ResolvConf>) {
        if !Arc::ptr_eq(&self.of, conf) {
            if *self.of != **conf {
                *self = Self::default();
            }
            self.of = Arc::clone(conf);
        }
    }

    fn entry(&mut self, key: &[u8]) -> Option<&mut Entry> {
        if let Some((key, entry)) = self.old.remove_entry(key) {
            self.insert(key, entry);
        }
        self.young.get_mut(key)
    }

    fn insert(&mut self, key: Box<[u8]>, entry: Entry) {
        let bytes = key.len() + entry.reply.len() + entry.lifetime.ttls.len() * size_of::<u16>() + ENTRY;
        if self.bytes + bytes > MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.bytes = 0;
        }
        // One that is replaced is counted twice, and goes the sooner.
        self.bytes += bytes;
        self.young.insert(key, entry);
    }
}

impl Entry {
    fn answer(&self, query: &[u8], now: Instant) -> Option<Cached> {
        let age = now.duration_since(self.arrived);
        let holds = self.lifetime.holds;
        if age < holds {
            return self
                .reply_to(query, |ttl| ttl.saturating_sub(age.as_secs() as u32))
                .map(Cached::Answer);
        }
        if age >= holds + MAX_STALE {
            return None;
        }
        let reply = self.reply_to(query, |_| STALE_TTL)?;
        Some(if now < self.recheck {
            Cached::Answer(reply)
        } else {
            Cached::Stale(reply)
        })
    }

    /// The reply with the query's id and its name as the client wrote it.
    fn reply_to(&self, query: &[u8], ttl: impl Fn(u32) -> u32) -> Option<Vec<u8>> {
        let mut reply = addressed(&self.reply, query)?;
        // Who gives what it has kept is no authority (RFC 1035, 6.2.7).
        *reply.get_mut(2)? &= !AUTHORITATIVE;
        for place in &self.lifetime.ttls {
            let bytes = reply.get_mut(usize::from(*place)..)?.first_chunk_mut()?;
            *bytes = ttl(u32::from_be_bytes(*bytes)).to_be_bytes();
        }
        Some(reply)
    }
}

/// A reply to the same question with the id of `query`, and its name as that client wrote it.
pub(super) fn addressed(reply: &[u8], query: &[u8]) -> Option<Vec<u8>> {
    let mut reply = reply.to_vec();
    reply.get_mut(..2)?.copy_from_slice(query.get(..2)?);
    if has_question_of(&reply, query) {
        let (end, _) = name_end(query, HEADER)?;
        reply.get_mut(HEADER..end)?.copy_from_slice(query.get(HEADER..end)?);
    }
    Some(reply)
}

/// The key of a query whose answer may be kept: all of it but its id and the case of its name, and the transport, for that
/// bounds the answer. Queries with options are not among them, which may be the client's own: a cookie, its network.
pub(super) fn key(query: &[u8], transport: Transport) -> Option<Box<[u8]>> {
    let (end, is_pointer) = name_end(query, HEADER)?;
    let (&[kind, kind_low, 0, 1], additional) = query.get(end..)?.split_first_chunk()? else {
        return None;
    };
    let is_plain = match (query.get(4..HEADER)?, additional) {
        ([0, 1, 0, 0, 0, 0, 0, 0], []) => true,
        // Root, OPT, payload, extended code, version and flags, no options (RFC 6891, 6.1.2).
        ([0, 1, 0, 0, 0, 0, 0, 1], [0, 0, 41, _, _, _, _, _, _, 0, 0]) => true,
        _ => false,
    };
    if !is_plain || is_pointer || (QUESTIONS_ONLY..=[0, 255]).contains(&[kind, kind_low]) {
        return None;
    }
    let mut key = query.get(1..)?.to_vec();
    *key.first_mut()? = u8::from(transport == Transport::Tcp);
    // In a label's length no bit is a letter's: it is below 64.
    key.get_mut(HEADER - 1..end - 1)?.make_ascii_lowercase();
    Some(key.into())
}

fn has_question_of(reply: &[u8], query: &[u8]) -> bool {
    let end = name_end(query, HEADER).map_or(HEADER, |(end, _)| end) + 4;
    match (reply.get(HEADER..end), query.get(HEADER..end)) {
        (Some(reply), Some(query)) => reply.eq_ignore_ascii_case(query),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
