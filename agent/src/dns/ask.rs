//! One name, asked as a program on this VM asks it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result};
use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde::Serialize;
use tokio::time::timeout;

use super::forward::{ask_tcp, ask_udp, random_id};
use super::message::OUR_PAYLOAD;

/// Longest wait for an answer: as long as the C library waits (resolv.conf(5), timeout).
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The answer to a question for one type of record.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Answer {
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The code in words: `No Error`, `Non-Existent Domain`.
    pub code: String,
    /// The records; an alias comes before what it leads to.
    pub records: Vec<AnswerRecord>,
}

/// A record of an answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct AnswerRecord {
    /// The record's name.
    pub name: String,
    /// The record's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// Time for which it may be kept, in seconds.
    pub ttl: u32,
    /// The record's data, as in a zone file.
    pub data: String,
}

/// Asks `server` for both families of a name's addresses, or for the name of an address.
///
/// # Errors
/// When `name` can be none, or the server gives no answer.
pub async fn ask(server: SocketAddr, name: &str) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    for (name, kind) in questions(name)? {
        let mut query = Message::new(u16::from_be_bytes(random_id()?), MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(name, kind));
        let mut edns = Edns::new();
        edns.set_max_payload(OUR_PAYLOAD);
        query.set_edns(edns);
        let reply = timeout(ANSWER_TIMEOUT, exchange(server, &query.to_vec()?)).await;
        let reply = reply.with_context(|| format!("no answer from {server} within {ANSWER_TIMEOUT:?}"))?;
        answers.push(read(kind, &reply.with_context(|| format!("failed to ask {server}"))?)?);
    }
    Ok(answers)
}

/// The questions that find out about a name, or about an address.
pub(super) fn questions(name: &str) -> Result<Vec<(Name, RecordType)>> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![(address.into(), RecordType::PTR)]);
    }
    let mut name = Name::from_ascii(name).with_context(|| format!("{name:?} can be no name of DNS"))?;
    name.set_fqdn(true);
    Ok(vec![(name.clone(), RecordType::A), (name, RecordType::AAAA)])
}

async fn exchange(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let reply = ask_udp(server, query).await?;
    match Message::from_vec(&reply) {
        Ok(message) if message.metadata.truncation => ask_tcp(server, query).await,
        _ => Ok(reply),
    }
}

pub(super) fn read(kind: RecordType, reply: &[u8]) -> Result<Answer> {
    let message = Message::from_vec(reply).context("the answer is damaged")?;
    let records = message.answers.iter().map(|record| AnswerRecord {
        name: record.name.to_ascii(),
        kind: record.record_type().to_string(),
        ttl: record.ttl,
        data: record.data.to_string(),
    });
    Ok(Answer {
        kind: kind.to_string(),
        code: message.metadata.response_code.to_string(),
        records: records.collect(),
    })
}
