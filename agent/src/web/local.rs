//! One HTTP/1.1 exchange over a connection of its own, on this VM.

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header, request};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::UnixStream;

/// Sends a request without a body over a unix socket, and reads an answer of at most `max` bytes. Has no deadline: the
/// caller knows for how long an answer is of use.
pub(crate) async fn exchange(
    stream: UnixStream,
    method: &Method,
    path: &str,
    max: usize,
) -> Result<(StatusCode, Bytes)> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost");
    let answer = fetch(stream, request, max).await?;
    Ok((answer.status(), answer.into_body()))
}

/// The same over any connection, with headers.
pub(crate) async fn fetch(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: request::Builder,
    max: usize,
) -> Result<Response<Bytes>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = request
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = async move {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, max).collect().await;
        let body = body.map_err(|error| anyhow!(error))?.to_bytes();
        Ok(Response::from_parts(head, body))
    };
    // The connection's own failure reaches the answer too.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
