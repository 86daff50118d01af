//! One HTTP/1.1 exchange over a unix socket.

use anyhow::{Result, anyhow};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

/// Sends a request without a body over a connection of its own, and reads an answer of at most `max` bytes. Has no
/// deadline: the caller knows for how long an answer is of use.
pub(crate) async fn exchange(
    stream: UnixStream,
    method: &Method,
    path: &str,
    max: usize,
) -> Result<(StatusCode, Bytes)> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let answer = async move {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), max).collect().await;
        Ok((status, body.map_err(|error| anyhow!(error))?.to_bytes()))
    };
    // The connection's own failure reaches the answer too.
    let (answer, _) = tokio::join!(answer, connection);
    answer
}
