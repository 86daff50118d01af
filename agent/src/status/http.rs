//! One HTTP exchange over a connection, within bounds of time and memory that the other side has no say in.
//!
//! There is no second request on a connection: a server that ends idle ones may end one in the moment in which a request
//! comes, and Envoy would answer 503 for it.

use std::convert::Infallible;
use std::time::Duration;

use http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::bounds::Place;
use crate::part::Answer;

/// From the connection to the last byte of the answer: as long as a scrape has by default.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest head of a request, in bytes; hyper takes no smaller bound. A body is never read.
const MAX_HEAD: usize = 8 << 10;

/// Answers the one request of a connection, as long as the connection has its place.
pub(super) async fn exchange<Fut: Future<Output = Answer>>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    place: Place,
    answer: impl Fn(Parts) -> Fut,
) {
    let service = service_fn(|request: http::Request<_>| {
        place.answering();
        // A body is nobody's.
        let answer = answer(request.into_parts().0);
        async { Ok::<_, Infallible>(answer.await) }
    });
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
