//! Liveness of a connection: it is asked, and any byte is an answer.
//!
//! HTTP/2 pings can't be asked often: istiod hangs up on a client that pings more than every 15 s. A call of a
//! service that istiod doesn't have costs it nothing and proves that its server runs.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use istio_api::health::HealthCheckRequest;
use istio_api::health::health_client::HealthClient;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::io::InspectReader;
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
    /// A stream that records when something last came. The end of a stream is no answer.
    pub(super) fn metered(self, stream: TcpStream) -> InspectReader<TcpStream, impl FnMut(&[u8])> {
        InspectReader::new(stream, move |bytes: &[u8]| {
            if !bytes.is_empty() {
                self.0.send_replace(Instant::now());
            }
        })
    }

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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_are_activity_and_the_end_of_a_stream_is_none() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let dialed = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut istiod, _) = listener.accept().await.unwrap();
        let activity = LastActivity::default();
        let mut stream = activity.clone().metered(dialed);
        let opened = activity.last();

        advance(IDLE_BEFORE_PROBE).await;
        istiod.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        let answered = activity.last();
        assert_eq!(answered, opened + IDLE_BEFORE_PROBE);

        advance(IDLE_BEFORE_PROBE).await;
        drop(istiod);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        assert_eq!(activity.last(), answered);
    }
}
