//! Liveness of a connection: it is asked, and any byte is an answer.
//!
//! HTTP/2 pings can't be asked often: istiod hangs up on a client that pings more than every 15 s. A call of a
//! service that istiod doesn't have costs it nothing and proves that its server runs.

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use istio_api::health::HealthCheckRequest;
use istio_api::health::health_client::HealthClient;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tonic::Status;
use tonic::transport::Channel;

use super::failure::with_causes;

/// A connection on which nothing came for so long is asked.
const IDLE_BEFORE_PROBE: Duration = Duration::from_millis(1500);
/// A connection on which nothing comes for so long after it was asked is dead. With [`IDLE_BEFORE_PROBE`] and the time
/// that the next control plane takes this stays below 5 s.
pub(super) const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// The time at which the last byte came on a connection.
#[derive(Clone, Debug)]
pub(super) struct LastActivity(Arc<watch::Sender<Instant>>);

impl Default for LastActivity {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now())))
    }
}

impl LastActivity {
    fn last(&self) -> Instant {
        *self.0.borrow()
    }

    /// Completes when nothing has come for `period` since `start`.
    async fn wait_idle(&self, start: Instant, period: Duration) {
        loop {
            let due = self.last().max(start) + period;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

/// Completes when the connection to istiod at `address` is dead, with the reason.
pub(super) async fn wait_dead(channel: Channel, activity: LastActivity, address: String) -> Error {
    loop {
        activity.wait_idle(activity.last(), IDLE_BEFORE_PROBE).await;
        let asked = Instant::now();
        tokio::select! {
            biased;
            answer = ask(channel.clone()) => if let Err(error) = answer {
                return error.context(format!("the connection to istiod at {address} broke"));
            },
            () = activity.wait_idle(asked, PROBE_TIMEOUT) => {
                return anyhow!("istiod at {address} is silent: nothing came within {PROBE_TIMEOUT:?} of a question");
            }
        }
    }
}

/// Fails when no gRPC server answers within [`PROBE_TIMEOUT`].
pub(super) async fn probe(channel: Channel) -> Result<()> {
    tokio::select! {
        biased;
        answer = ask(channel) => answer,
        () = sleep(PROBE_TIMEOUT) => Err(anyhow!("no answer within {PROBE_TIMEOUT:?}")),
    }
}

/// Asks for health; `UNIMPLEMENTED`, or whatever else the server says, is an answer.
async fn ask(channel: Channel) -> Result<()> {
    match HealthClient::new(channel).check(HealthCheckRequest::default()).await {
        Err(status) if is_local(&status) => {
            let text = with_causes(status.message().to_owned(), status.source());
            Err(anyhow!(text))
        }
        _ => Ok(()),
    }
}

/// True when the connection made the status, and not the server: only then it has a cause.
fn is_local(status: &Status) -> bool {
    status.source().is_some()
}

/// A stream that records when something last came.
#[derive(Debug)]
pub(super) struct MeteredStream {
    stream: TcpStream,
    activity: LastActivity,
}

impl MeteredStream {
    pub(super) fn new(stream: TcpStream, activity: LastActivity) -> Self {
        Self { stream, activity }
    }
}

impl AsyncRead for MeteredStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.activity.0.send_replace(Instant::now());
        }
        read
    }
}

impl AsyncWrite for MeteredStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
