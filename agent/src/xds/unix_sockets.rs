//! Unix sockets that istiod's configuration leads Envoy to. A ServiceEntry of any namespace, or a Sidecar of the VM's own,
//! may name any path of the VM (`unix:///run/…`), and Envoy may open what its user may: the socket that hands out the
//! workload's key, Envoy's admin interface, D-Bus. So Envoy is told of those alone that the operator has listed.

use std::ops::Range;
use std::path::PathBuf;

use bytes::{Bytes, BytesMut};
use istio_api::frame::{FieldSlices, Frame, FrameError, XdsProtocol};
use prost::DecodeError;

use crate::bounds::Refusals;

/// A message on the way from a resource to the path of a `Pipe`: the numbers of the fields that lead on, and to which message
/// (envoy/config/cluster, endpoint, listener and core, v3). One that leads nowhere is the path.
struct Way(&'static [(u32, &'static Self)]);

const PATH: Way = Way(&[]);
const PIPE: Way = Way(&[(1, &PATH)]);
const ADDRESS: Way = Way(&[(2, &PIPE)]);
const ADDITIONAL_ADDRESS: Way = Way(&[(1, &ADDRESS)]);
const HEALTH_CHECK_CONFIG: Way = Way(&[(3, &ADDRESS)]);
const ENDPOINT: Way = Way(&[(1, &ADDRESS), (2, &HEALTH_CHECK_CONFIG), (4, &ADDITIONAL_ADDRESS)]);
const LB_ENDPOINT: Way = Way(&[(1, &ENDPOINT)]);
const LB_ENDPOINT_LIST: Way = Way(&[(1, &LB_ENDPOINT)]);
const LOCALITY_LB_ENDPOINTS: Way = Way(&[(2, &LB_ENDPOINT), (7, &LB_ENDPOINT_LIST)]);
/// An entry of the map `named_endpoints`.
const NAMED_ENDPOINT: Way = Way(&[(2, &ENDPOINT)]);
const CLUSTER_LOAD_ASSIGNMENT: Way = Way(&[(2, &LOCALITY_LB_ENDPOINTS), (5, &NAMED_ENDPOINT)]);
const CLUSTER: Way = Way(&[(18, &ADDRESS), (33, &CLUSTER_LOAD_ASSIGNMENT)]);
const LISTENER: Way = Way(&[(2, &ADDRESS), (33, &ADDITIONAL_ADDRESS)]);

/// Field of either response that has its resources, and of `Resource` that has its `Any`.
const RESOURCE: u32 = 2;
/// Fields of `Any`.
const TYPE_URL: u32 = 1;
const VALUE: u32 = 2;

/// The way from a resource of that type, by its URL, of which Envoy reads what is behind the last slash. In SotW Envoy would
/// unwrap a `Resource` as well; it asks for deltas (`envoy::bootstrap`).
fn way_from(type_url: &[u8]) -> Option<&'static Way> {
    match type_url.rsplit(|byte| *byte == b'/').next()? {
        b"envoy.config.cluster.v3.Cluster" => Some(&CLUSTER),
        b"envoy.config.endpoint.v3.ClusterLoadAssignment" => Some(&CLUSTER_LOAD_ASSIGNMENT),
        b"envoy.config.endpoint.v3.LbEndpoint" => Some(&LB_ENDPOINT),
        b"envoy.config.listener.v3.Listener" => Some(&LISTENER),
        _ => None,
    }
}

/// The frame without paths of unix sockets that are not `allowed`. Each leads to the root directory in its place, which is
/// no socket, so that calls to it fail; it is counted and logged.
///
/// # Errors
/// When the frame is no protobuf: what isn't understood here may be understood by Envoy.
pub(super) fn guarded(
    protocol: XdsProtocol,
    frame: Frame,
    allowed: &[PathBuf],
    refusals: &Refusals,
) -> Result<Frame, FrameError> {
    let is_allowed = |path: &[u8]| allowed.iter().any(|one| one.as_os_str().as_encoded_bytes() == path);
    let mut forbidden = paths(protocol, &frame.0)?;
    forbidden.retain(|path| !is_allowed(path));
    if forbidden.is_empty() {
        return Ok(frame);
    }
    let places: Vec<Range<usize>> = forbidden.iter().map(|path| place(&frame.0, path)).collect();
    let mut bytes = BytesMut::from(&*frame.0);
    for place in places {
        let Some(path) = bytes.get_mut(place) else { continue };
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
    Ok(Frame(Bytes::from(bytes)))
}

/// The paths of unix sockets in a response, each a slice of it. A message that is there twice is one for Envoy, which merges
/// them: an `Any`'s type may stand in the one and its value in the other, and every path is gone to.
fn paths(protocol: XdsProtocol, response: &[u8]) -> Result<Vec<&[u8]>, FrameError> {
    let mut found = Vec::new();
    for resource in fields(response, RESOURCE) {
        let anys = match protocol {
            XdsProtocol::Sotw => vec![resource?],
            XdsProtocol::Delta => fields(resource?, RESOURCE).collect::<Result<_, _>>()?,
        };
        let (mut type_url, mut values) = (&b""[..], Vec::new());
        for any in anys {
            type_url = fields(any, TYPE_URL).last().transpose()?.unwrap_or(type_url);
            values.extend(fields(any, VALUE).collect::<Result<Vec<_>, _>>()?);
        }
        if let Some(way) = way_from(type_url) {
            values
                .into_iter()
                .try_for_each(|value| follow(way, value, &mut found))?;
        }
    }
    Ok(found)
}

/// Goes down all ways from a message, and takes what is at their ends.
fn follow<'a>(way: &Way, message: &'a [u8], found: &mut Vec<&'a [u8]>) -> Result<(), DecodeError> {
    if way.0.is_empty() {
        found.push(message);
        return Ok(());
    }
    for field in FieldSlices(message) {
        let (number, content) = field?;
        if let Some((_, next)) = way.0.iter().find(|(wanted, _)| *wanted == number) {
            follow(next, content, found)?;
        }
    }
    Ok(())
}

fn fields(message: &[u8], wanted: u32) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    FieldSlices(message).filter_map(move |field| match field {
        Ok((number, content)) => (number == wanted).then_some(Ok(content)),
        Err(error) => Some(Err(error)),
    })
}

/// The place of a slice in the bytes that it is of.
fn place(bytes: &[u8], slice: &[u8]) -> Range<usize> {
    let start = (slice.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    start..start + slice.len()
}

#[cfg(test)]
mod tests {
    use istio_api::ads::{DeltaDiscoveryResponse, DiscoveryResponse, Resource};
    use istio_api::rpc::Any;
    use proptest::prelude::*;
    use prost::encoding::{WireType, encode_key, encode_varint};

    use super::*;

    /// A field with a length.
    fn field(number: u32, content: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode_key(number, WireType::LengthDelimited, &mut bytes);
        encode_varint(content.len() as u64, &mut bytes);
        [bytes, content.to_vec()].concat()
    }

    /// A message inside others, whose numbers are told from the outermost on.
    fn inside(numbers: &[u32], content: &[u8]) -> Vec<u8> {
        let mut message = content.to_vec();
        for number in numbers.iter().rev() {
            message = field(*number, &message);
        }
        message
    }

    fn response(protocol: XdsProtocol, kind: &str, value: Vec<u8>) -> Frame {
        let any = Any {
            type_url: format!("type.googleapis.com/envoy.config.{kind}"),
            value: value.into(),
        };
        match protocol {
            XdsProtocol::Sotw => Frame::of(&DiscoveryResponse {
                resources: vec![any],
                ..Default::default()
            }),
            XdsProtocol::Delta => Frame::of(&DeltaDiscoveryResponse {
                resources: vec![Resource {
                    resource: Some(any),
                    ..Default::default()
                }],
                ..Default::default()
            }),
        }
    }

    const BOTH: [XdsProtocol; 2] = [XdsProtocol::Sotw, XdsProtocol::Delta];

    /// The places of an `Address` in resources: the type, and the numbers of the fields that lead there.
    const PLACES: [(&str, &[u32]); 9] = [
        ("listener.v3.Listener", &[2]),
        ("listener.v3.Listener", &[33, 1]),
        ("cluster.v3.Cluster", &[18]),
        ("cluster.v3.Cluster", &[33, 2, 2, 1, 1]),
        ("endpoint.v3.ClusterLoadAssignment", &[2, 2, 1, 1]),
        ("endpoint.v3.ClusterLoadAssignment", &[2, 2, 1, 2, 3]),
        ("endpoint.v3.ClusterLoadAssignment", &[2, 2, 1, 4, 1]),
        ("endpoint.v3.ClusterLoadAssignment", &[2, 7, 1, 1, 1]),
        ("endpoint.v3.ClusterLoadAssignment", &[5, 2, 1]),
    ];

    /// A resource with a `Pipe` at a place, between other fields.
    fn resource(place: &[u32], path: &str, mode: &[u8]) -> Vec<u8> {
        let pipe = [field(1, path.as_bytes()), mode.to_vec()].concat();
        let address = inside(place, &field(2, &pipe));
        [&field(1, b"/name")[..], b"\x18\x01", &address, &field(4, b"/x")].concat()
    }

    #[test]
    fn path_that_is_not_listed_leads_nowhere_and_all_else_stays() {
        let refusals = Refusals::default();
        let long = format!("/{}", "long/".repeat(40));
        let paths = [
            "/run/istio-vm-agent/sds.sock",
            "/x/../run/a",
            "sds.sock",
            "@a b\0",
            &long,
            "/a",
        ];
        for (kind, place) in PLACES {
            for (mode, path) in [&b""[..], b"\x10\xb6\x03"]
                .into_iter()
                .flat_map(|mode| paths.map(|path| (mode, path)))
            {
                for protocol in BOTH {
                    let frame = response(protocol, kind, resource(place, path, mode));
                    let harmless = response(protocol, kind, resource(place, &"/".repeat(path.len()), mode));
                    let guarded = |listed: &[PathBuf]| guarded(protocol, frame.clone(), listed, &refusals).unwrap();
                    assert_eq!(guarded(&[]), harmless, "{kind} {place:?} {path}");
                    assert_eq!(guarded(&[PathBuf::from(path)]), frame, "{path} is listed");
                    assert_eq!(guarded(&[PathBuf::from(format!("{path}2"))]), harmless);
                }
            }
        }
        let [told] = refusals.all().try_into().unwrap();
        assert_eq!((told.whose.as_str(), told.count), ("/a", 9 * 2 * 6 * 2 * 2));
    }

    /// A tenant's words may be the bytes of any message; what stands behind them is another's.
    #[test]
    fn words_that_look_like_a_pipe_are_words() {
        let pipe = field(1, &field(2, &field(1, b"/run/x")));
        for (kind, _) in PLACES {
            for protocol in BOTH {
                let frame = response(protocol, kind, inside(&[24, 1, 3], &pipe));
                assert_eq!(
                    guarded(protocol, frame.clone(), &[], &Refusals::default()).unwrap(),
                    frame
                );
            }
        }
        let other = response(
            XdsProtocol::Sotw,
            "route.v3.RouteConfiguration",
            resource(&[2], "/a", b""),
        );
        assert_eq!(
            guarded(XdsProtocol::Sotw, other.clone(), &[], &Refusals::default()).unwrap(),
            other
        );
    }

    /// Protobuf merges what is there twice.
    #[test]
    fn resource_in_two_parts_is_one() {
        let url = field(TYPE_URL, b"any/envoy.config.endpoint.v3.ClusterLoadAssignment");
        let value = field(VALUE, &resource(&[2, 2, 1, 1], "/a", b""));
        let resource = [field(RESOURCE, &url), field(RESOURCE, &value)].concat();
        let frame = Frame(field(RESOURCE, &resource).into());
        let guarded = guarded(XdsProtocol::Delta, frame.clone(), &[], &Refusals::default());
        assert_ne!(guarded.unwrap(), frame);
    }

    #[test]
    fn what_is_no_protobuf_is_not_passed_on() {
        for broken in [&b"\x0a\x05ab"[..], b"\xff\xff\xff\xff\xff\x01", b"\x0b", b"\x00"] {
            let value = [broken, &resource(&[2], "/a", b"")].concat();
            for protocol in BOTH {
                let frame = response(protocol, "listener.v3.Listener", value.clone());
                guarded(protocol, frame, &[], &Refusals::default()).unwrap_err();
            }
        }
    }

    proptest! {
        /// Whatever stands around it: other fields of a resource, before a `Pipe` and behind it.
        #[test]
        fn path_is_found_among_any_fields(
            around in proptest::collection::vec((5_u32..32, proptest::collection::vec(any::<u8>(), 0..40)), 0..20),
            at in any::<prop::sample::Index>(),
        ) {
            for (kind, place) in PLACES.into_iter().filter(|(kind, _)| !kind.starts_with("cluster")) {
                let with = |path: &str| {
                    let mut fields: Vec<Vec<u8>> = around.iter().map(|(number, content)| field(*number, content)).collect();
                    fields.retain(|field| !(kind.starts_with("endpoint") && field.starts_with(b"\x2a")));
                    let at = at.index(fields.len() + 1);
                    fields.insert(at, inside(place, &field(2, &field(1, path.as_bytes()))));
                    response(XdsProtocol::Delta, kind, fields.concat())
                };
                let guarded = guarded(XdsProtocol::Delta, with("/run/x"), &[], &Refusals::default());
                prop_assert_eq!(guarded.unwrap(), with("//////"));
            }
        }
    }
}
