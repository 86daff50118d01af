//! Unix sockets that istiod's configuration leads Envoy to. A ServiceEntry of any namespace, or a Sidecar of the VM's own,
//! may name any path of the VM (`unix:///run/…`), and Envoy may open what its user may: the socket that hands out the
//! workload's key, Envoy's admin interface, D-Bus. So Envoy is told of those alone that the operator has listed.

use std::ops::Range;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use istio_api::frame::Frame;
use memchr::memchr2_iter;

use crate::bounds::Refusals;

/// Longest path of a unix socket, in bytes (unix(7), sun_path).
const LONGEST: u8 = 108;
/// Tags of fields that are messages or strings, by their numbers (protobuf's encoding, wire type LEN).
const FIELD_1: u8 = 0x0a;
const FIELD_2: u8 = 0x12;
const FIELD_3: u8 = 0x1a;

/// The frame without paths of unix sockets that are not `allowed`. Each leads to the root directory in its place, which is
/// no socket, so that calls to it fail and everything else goes on; it is counted and logged.
pub(super) fn guarded(frame: Frame, allowed: &[PathBuf], refusals: &Refusals) -> Frame {
    let is_allowed = |path: &[u8]| allowed.iter().any(|one| one.as_os_str().as_encoded_bytes() == path);
    let forbidden: Vec<Range<usize>> = paths(&frame.0)
        .filter(|path| frame.0.get(path.clone()).is_some_and(|path| !is_allowed(path)))
        .collect();
    if forbidden.is_empty() {
        return frame;
    }
    let mut bytes = BytesMut::from(&*frame.0);
    for path in forbidden {
        let Some(path) = bytes.get_mut(path) else { continue };
        let told = String::from_utf8_lossy(path);
        if let Some(count) = refusals.add("unix sockets that envoy.unix_sockets doesn't list", &told) {
            tracing::warn!(
                count,
                path = %told.escape_debug(),
                "istiod leads Envoy to a unix socket that envoy.unix_sockets doesn't list: calls to it fail"
            );
        }
        path.fill(b'/');
    }
    Frame(Bytes::from(bytes))
}

/// Places of the paths of unix sockets in a response: absolute ones, and abstract names, which begin with `@`.
fn paths(bytes: &[u8]) -> impl Iterator<Item = Range<usize>> {
    memchr2_iter(b'/', b'@', bytes).filter_map(|start| path_at(bytes, start))
}

/// The path of the `Pipe` that begins there, if it is one. Resources are not parsed: an `Endpoint`, a `Listener` and a
/// `HealthCheckConfig` have an `Address` as field 1, 2 or 3, which has a `Pipe` as field 2, which has its path as field 1
/// (envoy/config/core/v3/address.proto), and the lengths of all fit each other.
fn path_at(bytes: &[u8], start: usize) -> Option<Range<usize>> {
    let head: &[u8; 6] = bytes.get(start.checked_sub(6)?..start)?.try_into().ok()?;
    let [FIELD_1 | FIELD_2 | FIELD_3, address, FIELD_2, pipe, FIELD_1, path] = *head else {
        return None;
    };
    // Behind the path a `Pipe` may have its mode, in at most six bytes.
    let is_pipe = path <= LONGEST && (path + 2..=path + 8).contains(&pipe) && address == pipe + 2;
    let end = start + usize::from(path);
    let text = bytes.get(start..end)?;
    // `@` is also the tag of a field 8 in a message, which has bytes behind it that no name has.
    let is_text = text.starts_with(b"/") || text.iter().all(u8::is_ascii_graphic);
    (is_pipe && is_text).then_some(start..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(tag: u8, content: &[u8]) -> Vec<u8> {
        [&[tag, u8::try_from(content.len()).unwrap()], content].concat()
    }

    /// A cluster's endpoints, as istiod has them of a ServiceEntry with `unix://PATH`, and a listener's address.
    fn response(path: &str, mode: &[u8]) -> Frame {
        let pipe = [nested(FIELD_1, path.as_bytes()), mode.to_vec()].concat();
        let address = nested(FIELD_2, &pipe);
        let endpoint = nested(FIELD_1, &nested(FIELD_1, &nested(FIELD_1, &address)));
        let listener = nested(FIELD_2, &address);
        Frame(
            [&b"\x0a\x05/name"[..], &endpoint, &listener, b"\x1a\x02/x"]
                .concat()
                .into(),
        )
    }

    #[test]
    fn path_that_is_not_listed_leads_nowhere_and_all_else_stays() {
        let refusals = Refusals::default();
        for mode in [&b""[..], b"\x10\xb6\x03"] {
            for path in ["/run/istio-vm-agent/sds.sock", "/x/../run/a", "@abstract", "/a"] {
                let frame = response(path, mode);
                let guarded = guarded(frame.clone(), &[], &refusals);
                assert_eq!(guarded, response(&"/".repeat(path.len()), mode), "{path}");
                let listed = guarded_by(&frame, path, &refusals);
                assert_eq!(listed, frame, "{path} is listed");
                assert_ne!(guarded_by(&frame, &format!("{path}2"), &refusals), frame);
            }
        }
        let [told] = refusals.all().try_into().unwrap();
        assert_eq!((told.whose.as_str(), told.count), ("/a", 32));
    }

    fn guarded_by(frame: &Frame, listed: &str, refusals: &Refusals) -> Frame {
        guarded(frame.clone(), &[PathBuf::from(listed)], refusals)
    }

    #[test]
    fn file_of_a_certificate_is_no_unix_socket() {
        // TlsCertificate: certificate_chain and private_key, each a DataSource with the name of a file.
        let file = |tag, name: &str| nested(tag, &nested(FIELD_1, name.as_bytes()));
        let certificate = [
            file(FIELD_1, "/etc/certs/chain.pem"),
            file(FIELD_2, "/etc/certs/key.pem"),
        ]
        .concat();
        let frame = Frame(nested(FIELD_2, &certificate).into());
        assert_eq!(guarded(frame.clone(), &[], &Refusals::default()), frame);
    }

    #[test]
    fn message_whose_first_field_has_the_tag_of_an_abstract_name_is_no_unix_socket() {
        let field_8 = nested(FIELD_1, &nested(FIELD_2, &nested(FIELD_1, b"\x40\x01")));
        let frame = Frame(field_8.into());
        assert_eq!(guarded(frame.clone(), &[], &Refusals::default()), frame);
    }

    proptest! {
        #[test]
        fn any_bytes_keep_their_length(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let frame = Frame(bytes.into());
            prop_assert_eq!(guarded(frame.clone(), &[], &Refusals::default()).0.len(), frame.0.len());
        }
    }
}
