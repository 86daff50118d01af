//! One HTTP exchange over a connection, within bounds of time and memory that the other side has no say in.
//!
//! There is no second request on a connection: a server that ends idle ones may end one in the moment in which a request
//! comes, and Envoy would answer 503 for it.

use std::convert::Infallible;
use std::future::ready;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::bounds::Place;

/// From the connection to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest head of a request, in bytes; hyper takes no smaller bound. A body is never read.
const MAX_HEAD: usize = 8 << 10;

pub(super) type Answer = Full<Bytes>;

/// Answers the one request of a connection, as long as the connection has its place.
pub(super) async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    place: Place,
    answer: impl Fn(&Request<Incoming>) -> Response<Answer>,
) {
    let service = service_fn(|request| ready(Ok::<_, Infallible>(answer(&request))));
    let exchange = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        // Nobody is told of one that fails or takes too long: it is the other side's.
        _ = timeout(DEADLINE, exchange) => {}
        () = place.lost() => {}
    }
}

pub(super) fn text(status: StatusCode, text: &str) -> Response<Answer> {
    typed(status, "text/plain", text.to_owned())
}

pub(super) fn json(document: String) -> Response<Answer> {
    typed(StatusCode::OK, "application/json", document)
}

fn typed(status: StatusCode, kind: &'static str, body: String) -> Response<Answer> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
