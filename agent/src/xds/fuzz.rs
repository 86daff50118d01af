//! Properties of istiod's and Envoy's messages, whatever the bytes.

use bytes::Bytes;
use istio_api::frame::{AnyRequest, Frame, XdsProtocol};

use super::acks::AckTracker;
use super::session::Session;
use super::snapshot::document::{Member, Snapshot};
use super::standby::Word;
use super::{name_table, node, own_endpoints, unix_sockets};
use crate::bounds::Refusals;
use crate::facts::NameTable;

/// The first byte says which protocol, the rest is a message.
fn message(input: &[u8]) -> Option<(XdsProtocol, Frame)> {
    let (first, rest) = input.split_first()?;
    let protocol = match first % 2 {
        0 => XdsProtocol::Delta,
        _ => XdsProtocol::Sotw,
    };
    Some((protocol, Frame(Bytes::copy_from_slice(rest))))
}

/// A message in either direction.
pub(crate) fn frame(input: &[u8]) {
    let Some((protocol, frame)) = message(input) else {
        return;
    };
    if let Ok(request) = frame.request(protocol) {
        let again = Frame::of_request(protocol, request.clone()).request(protocol);
        assert_eq!(again.ok().as_ref(), Some(&request), "what is written is read again");
        let _ = request.node.as_ref().and_then(node::address);
    }
    if let Ok(guarded) = unix_sockets::guarded(protocol, frame.clone(), &[], &Refusals::default()) {
        assert_eq!(guarded.0.len(), frame.0.len(), "every length in a message stays");
        let again = unix_sockets::guarded(protocol, guarded.clone(), &["//".into()], &Refusals::default());
        assert_eq!(again.ok(), Some(guarded), "what leads nowhere stays so");
    }
    let addresses = [[10, 0, 0, 3].into()];
    if let Ok(clusters) = own_endpoints::read(protocol, &frame, &addresses) {
        assert!(clusters.len() <= frame.0.len() / 2);
    }
    let head = frame.response();
    if let Ok(changes) = frame.changes() {
        // A tag and a length at least.
        assert!(changes.resources.len() + changes.removed.len() <= frame.0.len() / 2);
        assert!(
            head.is_err()
                || protocol == XdsProtocol::Sotw
                || changes.resources.is_empty()
                || head.unwrap_or_default().has_resources
        );
    }
}

/// A response with a name table.
pub(crate) fn names(input: &[u8]) {
    let Some((protocol, frame)) = message(input) else {
        return;
    };
    let Ok(Some(table)) = name_table::parse(protocol, &frame) else {
        return;
    };
    for (name, info) in &table.names {
        assert!(!name.ends_with('.') && !info.ips.is_empty());
    }
    let kept = serde_json::to_string(&table).expect("a name table can be kept");
    let read: NameTable = serde_json::from_str(&kept).expect("what is kept is read again");
    assert!(read == table);
}

/// The snapshot's file, or the part of it that has the resources.
pub(crate) fn snapshot(input: &[u8]) {
    let bytes = Bytes::copy_from_slice(input);
    let _ = Snapshot::parse(bytes.clone(), &Member::default());
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    let mut kept = Vec::new();
    snapshot.encode_body(&mut kept).expect("what is read can be kept");
    assert_eq!(
        Snapshot::decode(kept.into()).ok(),
        Some(snapshot),
        "what is kept is read again"
    );
}

/// A word of the agent's to whoever holds its place.
pub(crate) fn place(line: &[u8]) {
    if let Ok(word) = Word::parse(line) {
        let again = Word::parse(&word.line()).expect("what is written is read again");
        assert_eq!(again, word);
    }
}

/// A conversation: the first byte says in which protocol; then, of each message, a byte that says whose it is, its length in
/// two, and itself.
pub(crate) fn session(input: &[u8]) {
    let Some((protocol, _)) = message(input) else { return };
    let mut rest = input.get(1..).unwrap_or_default();
    let (mut session, mut acks) = (Session::new(protocol), AckTracker::default());
    while let Some((&[kind, high, low], after)) = rest.split_first_chunk() {
        let length = usize::from(u16::from_be_bytes([high, low])).min(after.len());
        let (bytes, after) = after.split_at(length);
        rest = after;
        let frame = Frame(Bytes::copy_from_slice(bytes));
        match (kind % 3, frame.request(protocol), frame.changes()) {
            (0, Ok(request), _) => {
                acks.read(&request);
                session.note(&request);
            }
            (1, _, Ok(changes)) => session.sent("a", &changes),
            (2, _, Ok(changes)) => session.accepted("a", changes),
            _ => {}
        }
    }
    let opening = requests(protocol, &session);
    let mut successor = Session::new(protocol);
    for request in &opening {
        successor.note(request);
    }
    assert_eq!(
        requests(protocol, &successor),
        opening,
        "the next istiod is told the same"
    );
}

fn requests(protocol: XdsProtocol, session: &Session) -> Vec<AnyRequest> {
    let frames = session.opening().into_iter();
    let read = frames.map(|(_, frame)| frame.request(protocol).expect("what we write is a request"));
    read.collect()
}
