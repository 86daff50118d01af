//! Whether a connection is alive: it is asked, and any byte is an answer.
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

use super::Connection;
use super::connect::spell_out;

/// A connection on which nothing came for so long is asked.
const QUIET: Duration = Duration::from_millis(1500);
/// A connection on which nothing comes for so long after it was asked is dead. With [`QUIET`] and the time that the
/// next control plane takes this stays below 5 s.
const SILENCE: Duration = Duration::from_secs(2);

/// When something last came.
#[derive(Clone, Debug)]
pub(super) struct Pulse(Arc<watch::Sender<Instant>>);

impl Default for Pulse {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Instant::now())))
    }
}

impl Pulse {
    fn last(&self) -> Instant {
        *self.0.borrow()
    }

    /// Completes when nothing has come for `period` since `start`.
    async fn lost(&self, start: Instant, period: Duration) {
        loop {
            let due = self.last().max(start) + period;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }
}

impl Connection {
    /// Completes when the connection is dead, with the reason. Holds no part of it: dropping it ends the watch.
    pub fn death(&self) -> impl Future<Output = Error> + Send + use<> {
        let (channel, pulse, address) = (self.channel.clone(), self.pulse.clone(), self.address.clone());
        async move {
            loop {
                pulse.lost(pulse.last(), QUIET).await;
                let asked = Instant::now();
                tokio::select! {
                    biased;
                    answer = ask(channel.clone()) => if let Err(error) = answer {
                        return error.context(format!("the connection to istiod at {address} broke"));
                    },
                    () = pulse.lost(asked, SILENCE) => {
                        return anyhow!("istiod at {address} is silent: nothing came within {SILENCE:?} of a question");
                    }
                }
            }
        }
    }

    /// Whether a gRPC server answers on it.
    pub async fn is_alive(&self) -> Result<()> {
        tokio::select! {
            biased;
            answer = ask(self.channel.clone()) => answer,
            () = sleep(SILENCE) => Err(anyhow!("no answer within {SILENCE:?}")),
        }
        .map_err(|error| error.context(format!("istiod at {} doesn't answer", self.address)))
    }
}

/// Asks for health; `UNIMPLEMENTED`, or whatever else the server says, is an answer.
async fn ask(channel: Channel) -> Result<()> {
    match HealthClient::new(channel).check(HealthCheckRequest::default()).await {
        Err(status) if is_of_this_end(&status) => {
            let text = spell_out(status.message().to_owned(), status.source());
            Err(anyhow!(text))
        }
        _ => Ok(()),
    }
}

/// Whether the connection made the status, and not the server: only then it has a cause.
fn is_of_this_end(status: &Status) -> bool {
    status.source().is_some()
}

/// A stream that tells its pulse.
#[derive(Debug)]
pub(super) struct Felt {
    stream: TcpStream,
    pulse: Pulse,
}

impl Felt {
    pub(super) fn new(stream: TcpStream, pulse: Pulse) -> Self {
        Self { stream, pulse }
    }
}

impl AsyncRead for Felt {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.pulse.0.send_replace(Instant::now());
        }
        read
    }
}

impl AsyncWrite for Felt {
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
