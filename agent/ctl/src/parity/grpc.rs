//! One unary call of gRPC, whose messages nobody reads.

use std::collections::BTreeMap;

use anyhow::{Context, Result, anyhow};
use bytes::{Buf as _, BufMut as _};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status};

use super::{Answer, Body, MAX_ANSWER};
use crate::names;

pub(super) async fn ask(address: &str, path: &str, message: &[u8]) -> Result<Answer> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    let channel = endpoint.connect_with_connector(names::connector()).await;
    let channel = channel.context("failed to connect")?;
    let mut client = Grpc::new(channel).max_decoding_message_size(MAX_ANSWER);
    client.ready().await?;
    let path: PathAndQuery = path.parse().with_context(|| format!("{path:?} is no path"))?;
    let request = Request::new(message.to_vec());
    let (code, metadata, body) = match client.unary(request, path, Raw).await {
        Ok(response) => {
            let (metadata, body, _) = response.into_parts();
            (Code::Ok, metadata, body)
        }
        // A status that nobody sent has a cause on this side.
        Err(status) if std::error::Error::source(&status).is_some() => return Err(anyhow!(status)),
        Err(status) => (status.code(), status.metadata().clone(), Vec::new()),
    };
    Ok(Answer {
        status: format!("{code:?} ({})", i32::from(code)),
        headers: texts(&metadata),
        body: Body::Bytes(body),
    })
}

fn texts(metadata: &MetadataMap) -> BTreeMap<String, String> {
    let texts = metadata.iter().filter_map(|entry| match entry {
        KeyAndValueRef::Ascii(key, value) => Some((key.as_str().to_owned(), value.to_str().ok()?.to_owned())),
        KeyAndValueRef::Binary(..) => None,
    });
    texts.collect()
}

/// Messages as they are.
#[derive(Clone, Copy, Debug)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining()).to_vec()))
    }
}
