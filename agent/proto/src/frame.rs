//! Discovery messages that are passed on as they came: raw bytes, and a look at their few small fields.
//!
//! A frame is never decoded and encoded again, so fields that this crate doesn't know survive, and no resource
//! is parsed.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use prost::{DecodeError, Message};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use crate::rpc;

/// The discovery service over frames: `aggregated_discovery_service_client` and `_server`, as in [`crate::ads`].
#[expect(clippy::default_constructed_unit_structs, reason = "generated")]
mod generated {
    include!("generated/frames.rs");
}

pub use generated::{aggregated_discovery_service_client, aggregated_discovery_service_server};

/// Most resources and names in one message: ten times those of a large mesh. A few bytes on the wire are a hundred in memory,
/// so that the size of a message alone bounds too little.
pub const MAX_PARTS: usize = 100_000;

/// A message that is not looked at.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The bytes are no such message.
    #[error(transparent)]
    Malformed(#[from] DecodeError),
    /// Unfolded, the message would take more memory than it is worth.
    #[error("it has more than {MAX_PARTS} resources and names")]
    Crowded,
}

/// The fields of a message that have a length (messages, strings, bytes), tag and content; others are skipped. After an
/// error there are no more.
#[derive(Clone, Debug)]
pub struct Fields(pub Bytes);

impl Iterator for Fields {
    type Item = Result<(u32, Bytes), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut rest = FieldSlices(&self.0);
        let next = rest.next()?.map(|(tag, content)| (tag, self.0.slice_ref(content)));
        self.0 = self.0.slice_ref(rest.0);
        Some(next)
    }
}

/// [`Fields`] of a message that is kept elsewhere: where many are looked at, none is counted.
#[derive(Clone, Debug)]
pub struct FieldSlices<'a>(pub &'a [u8]);

impl<'a> Iterator for FieldSlices<'a> {
    type Item = Result<(u32, &'a [u8]), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.advance().transpose();
        if matches!(next, None | Some(Err(_))) {
            self.0 = &[];
        }
        next
    }
}

impl<'a> FieldSlices<'a> {
    fn advance(&mut self) -> Result<Option<(u32, &'a [u8])>, DecodeError> {
        while self.0.has_remaining() {
            let (tag, wire_type) = decode_key(&mut self.0)?;
            let field = self.0;
            skip_field(wire_type, tag, &mut self.0, DecodeContext::default())?;
            if wire_type == WireType::LengthDelimited {
                let (mut content, _) = field.split_at(field.len() - self.0.len());
                decode_varint(&mut content)?;
                return Ok(Some((tag, content)));
            }
        }
        Ok(None)
    }
}

/// Fails when a message has more parts than are worth their memory.
pub fn count_parts(message: &Bytes) -> Result<usize, FrameError> {
    let mut count = 0;
    for field in Fields(message.clone()) {
        field?;
        count += 1;
        if count > MAX_PARTS {
            return Err(FrameError::Crowded);
        }
    }
    Ok(count)
}

/// One message of a discovery stream, as it is on the wire.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Frame(pub Bytes);

/// Variant of xDS that a stream speaks; it decides the field numbers ("The xDS transport protocol: Four variants").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum XdsProtocol {
    /// State of the world: `DiscoveryRequest` and `DiscoveryResponse`.
    Sotw,
    /// Incremental: `DeltaDiscoveryRequest` and `DeltaDiscoveryResponse`.
    Delta,
}

/// A request in either protocol. Fields that are not here are in neither, or mean nothing to istiod.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnyRequest {
    /// Node that asks, unparsed; in the first request of a stream only.
    pub node: Option<Bytes>,
    /// Type of the resources asked for.
    pub type_url: String,
    /// `resource_names`, or `resource_names_subscribe`.
    pub names: Vec<String>,
    /// `resource_names_unsubscribe`.
    pub unsubscribe: Vec<String>,
    /// `version_info`.
    pub version: String,
    /// `initial_resource_versions`: what is there already, by name.
    pub versions: HashMap<String, String>,
    /// Nonce of the response that it answers; empty in a first request.
    pub response_nonce: String,
    /// Reason why that response was refused; absent when it was accepted.
    pub error_detail: Option<rpc::Status>,
}

/// The small fields of a response.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ResponseHead {
    /// Type of the resources in it.
    pub type_url: String,
    /// Nonce, which the answer to it must name.
    pub nonce: String,
    /// `version_info`, or `system_version_info`.
    pub version: String,
    /// True when there are resources in it.
    pub has_resources: bool,
}

impl Frame {
    /// A message of our own.
    pub fn of(message: &impl Message) -> Self {
        Self(message.encode_to_vec().into())
    }

    /// Reads a request; fails when it is no protobuf message, or one of too many names.
    pub fn request(&self, protocol: XdsProtocol) -> Result<AnyRequest, FrameError> {
        count_parts(&self.0)?;
        Ok(match protocol {
            XdsProtocol::Sotw => {
                let request: SotwRequest = Message::decode(self.0.clone())?;
                AnyRequest {
                    node: request.node,
                    type_url: request.type_url,
                    names: request.names,
                    version: request.version,
                    response_nonce: request.response_nonce,
                    error_detail: request.error_detail,
                    ..AnyRequest::default()
                }
            }
            XdsProtocol::Delta => {
                let request: DeltaRequest = Message::decode(self.0.clone())?;
                AnyRequest {
                    node: request.node,
                    type_url: request.type_url,
                    names: request.subscribe,
                    unsubscribe: request.unsubscribe,
                    versions: request.versions,
                    response_nonce: request.response_nonce,
                    error_detail: request.error_detail,
                    ..AnyRequest::default()
                }
            }
        })
    }

    /// Writes a request; what its protocol has no field for is left out.
    pub fn of_request(protocol: XdsProtocol, request: AnyRequest) -> Self {
        match protocol {
            XdsProtocol::Sotw => Self::of(&SotwRequest {
                version: request.version,
                node: request.node,
                names: request.names,
                type_url: request.type_url,
                response_nonce: request.response_nonce,
                error_detail: request.error_detail,
            }),
            XdsProtocol::Delta => Self::of(&DeltaRequest {
                node: request.node,
                type_url: request.type_url,
                subscribe: request.names,
                unsubscribe: request.unsubscribe,
                versions: request.versions,
                response_nonce: request.response_nonce,
                error_detail: request.error_detail,
            }),
        }
    }

    /// Changes that a delta response makes. Resources are named, neither parsed nor copied.
    pub fn changes(&self) -> Result<Changes, FrameError> {
        count_parts(&self.0)?;
        Ok(Changes::decode(self.0.clone())?)
    }

    /// A delta response with these resources, each as it came, and the names of those that are not there.
    pub fn of_resources(type_url: &str, nonce: &str, resources: Vec<Bytes>, removed: Vec<String>) -> Self {
        Self::of(&ResourcesResponse {
            resources,
            type_url: type_url.to_owned(),
            nonce: nonce.to_owned(),
            removed,
        })
    }

    /// Resources of a delta response, each with its name and as it came: a slice of this frame. Fails when it is no
    /// protobuf message, or one of too many parts.
    pub fn resources(&self) -> Result<Vec<(String, Bytes)>, FrameError> {
        count_parts(&self.0)?;
        let mut resources = Vec::new();
        for field in Fields(self.0.clone()) {
            if let (RESOURCES, resource) = field? {
                resources.push((resource_name(&resource)?, resource));
            }
        }
        Ok(resources)
    }

    /// Small fields of a response; fails when it is no protobuf message. Resources are skipped, neither parsed nor
    /// copied.
    pub fn response(&self) -> Result<ResponseHead, FrameError> {
        let Response {
            version,
            resource,
            type_url,
            nonce,
        } = Message::decode(self.0.clone())?;
        Ok(ResponseHead {
            type_url,
            nonce,
            version,
            has_resources: resource.is_some(),
        })
    }
}

/// Name of a resource of a delta response; fails when it is no protobuf message.
pub fn resource_name(resource: &Bytes) -> Result<String, DecodeError> {
    Ok(ResourceVersion::decode(resource.clone())?.name)
}

/// `DiscoveryRequest`. prost skips the fields that are not here.
#[derive(Clone, PartialEq, Message)]
struct SotwRequest {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(bytes = "bytes", optional, tag = "2")]
    node: Option<Bytes>,
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    response_nonce: String,
    #[prost(message, optional, tag = "6")]
    error_detail: Option<rpc::Status>,
}

/// `DeltaDiscoveryRequest`.
#[derive(Clone, PartialEq, Message)]
struct DeltaRequest {
    #[prost(bytes = "bytes", optional, tag = "1")]
    node: Option<Bytes>,
    #[prost(string, tag = "2")]
    type_url: String,
    #[prost(string, repeated, tag = "3")]
    subscribe: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    unsubscribe: Vec<String>,
    #[prost(map = "string, string", tag = "5")]
    versions: HashMap<String, String>,
    #[prost(string, tag = "6")]
    response_nonce: String,
    #[prost(message, optional, tag = "7")]
    error_detail: Option<rpc::Status>,
}

/// Changes that a delta response makes: those fields of `DeltaDiscoveryResponse`.
#[derive(Clone, Eq, PartialEq, Message)]
pub struct Changes {
    /// Resources that are new.
    #[prost(message, repeated, tag = "2")]
    pub resources: Vec<ResourceVersion>,
    /// Names of resources that are gone.
    #[prost(string, repeated, tag = "6")]
    pub removed: Vec<String>,
}

/// Field number of the resources in a delta response.
const RESOURCES: u32 = 2;

/// A delta response: its resources are not looked at.
#[derive(Clone, PartialEq, Message)]
struct ResourcesResponse {
    #[prost(bytes = "bytes", repeated, tag = "2")]
    resources: Vec<Bytes>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
    #[prost(string, repeated, tag = "6")]
    removed: Vec<String>,
}

/// A resource of a delta response, unparsed: those fields of `Resource`.
#[derive(Clone, Eq, PartialEq, Message)]
pub struct ResourceVersion {
    /// `version`.
    #[prost(string, tag = "1")]
    pub version: String,
    /// `name`.
    #[prost(string, tag = "3")]
    pub name: String,
}

/// The fields of [`ResponseHead`]: both forms number them alike.
#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(string, tag = "1")]
    version: String,
    // Not repeated: the last one is kept, as a slice of the frame, however many there are.
    #[prost(bytes = "bytes", optional, tag = "2")]
    resource: Option<Bytes>,
    #[prost(string, tag = "4")]
    type_url: String,
    #[prost(string, tag = "5")]
    nonce: String,
}

/// Passes messages through as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

impl Codec for FrameCodec {
    type Encode = Frame;
    type Decode = Frame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn encode(&mut self, frame: Frame, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(frame.0.len());
        to.put(frame.0);
        Ok(())
    }
}

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Frame>, Status> {
        // Splits the receive buffer: no copy.
        Ok(Some(Frame(from.copy_to_bytes(from.remaining()))))
    }
}

#[cfg(test)]
mod tests;
