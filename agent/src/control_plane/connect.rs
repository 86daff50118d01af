//! A connection to istiod: all addresses of a name in order, TLS, HTTP/2.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Error, Result, anyhow, bail};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{sleep, timeout};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::pulse::{Felt, Pulse};
use super::tls;
use crate::facts::{Credentials, Membership};

/// How long an address is waited for before the next one of the same name is tried beside it.
const STAGGER: Duration = Duration::from_millis(500);
/// Istio's GRPC_KEEPALIVE_INTERVAL and GRPC_KEEPALIVE_TIMEOUT (istio/pkg/keepalive/options.go). istiod hangs up on
/// a client that pings more often.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// HTTP/2 window of a stream (istio/pilot/pkg/grpc/grpc.go); the connection's is twice that, so that a stream that
/// nobody reads doesn't stop the others.
const WINDOW: u32 = 1 << 20;

/// A connection, and the address it went to.
#[derive(Debug)]
pub struct Connection {
    /// For a generated client.
    pub channel: Channel,
    /// `host:port (ip)`.
    pub address: String,
    /// The address behind the name.
    pub ip: IpAddr,
    /// When something last came.
    pub(super) pulse: Pulse,
}

/// Connects to `address` (`host:port`) with TLS: istiod proves its name under the mesh's roots, and the VM
/// shows its certificate when it has a valid one. Each address of the name is given `patience`, the later ones
/// beside the earlier, and the first that answers wins. An error names its cause and the remedy.
pub async fn connect(
    membership: &Membership,
    address: &str,
    credentials: Option<&Credentials>,
    now: SystemTime,
    patience: Duration,
) -> Result<Connection> {
    let (host, _) = split(address)?;
    let tls = tls_config(membership, host, credentials, now);
    let found = timeout(patience, resolve(membership, address))
        .await
        .map_err(|_| anyhow!("failed to resolve {host}: the VM's resolver gave no answer within {patience:?}"))??;
    let tries = found.into_iter().map(|target| {
        let tls = tls.clone();
        async move {
            let connected = timeout(patience, connect_to(address, target, tls)).await;
            connected
                .map_err(|_| anyhow!("no answer within {patience:?}: check routes and firewalls"))
                .flatten()
                .map_err(|error| match remedy(&error, host, now) {
                    Some(remedy) => error.context(remedy),
                    None => error,
                })
                .with_context(|| format!("failed to connect to istiod at {address} ({})", target.ip()))
        }
    });
    first_of(tries)
        .await
        .unwrap_or_else(|| Err(anyhow!("{host} has no address")))
}

/// The first success of `tries`, which begin one after another: each when all before it have failed, or have not
/// ended within [`STAGGER`] of the last. The error is the last one's; `None` when there is nothing to try.
async fn first_of<T>(tries: impl Iterator<Item = impl Future<Output = Result<T>>>) -> Option<Result<T>> {
    let mut tries = tries.peekable();
    let mut running: Vec<Pin<Box<_>>> = vec![Box::pin(tries.next()?)];
    loop {
        let ended = poll_fn(|context| {
            let ended = running
                .iter_mut()
                .enumerate()
                .find_map(|(at, one)| match one.as_mut().poll(context) {
                    Poll::Ready(result) => Some((at, result)),
                    Poll::Pending => None,
                });
            ended.map_or(Poll::Pending, Poll::Ready)
        });
        let ended = tokio::select! {
            biased;
            (at, result) = ended => Some((at, result)),
            () = sleep(STAGGER), if tries.peek().is_some() => None,
        };
        if let Some((at, result)) = ended {
            drop(running.swap_remove(at));
            match result {
                Err(error) if tries.peek().is_some() || !running.is_empty() => {
                    // The caller is told of the last one only.
                    tracing::debug!("{error:#}");
                    if !running.is_empty() {
                        continue;
                    }
                }
                result => return Some(result),
            }
        }
        running.extend(tries.next().map(Box::pin));
    }
}

fn tls_config(
    membership: &Membership,
    host: &str,
    credentials: Option<&Credentials>,
    now: SystemTime,
) -> ClientTlsConfig {
    let mut tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(&membership.roots_pem))
        .domain_name(host);
    if let Some(credentials) = credentials {
        // The CA's own word on its roots is newer than the bundle's, and outlives the certificate.
        tls = tls.ca_certificate(Certificate::from_pem(&credentials.roots_pem));
        if credentials.valid_at(now) {
            tls = tls.identity(Identity::from_pem(&credentials.chain_pem, credentials.key.expose_pem()));
        }
    }
    tls
}

async fn connect_to(address: &str, target: SocketAddr, tls: ClientTlsConfig) -> Result<Connection> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .with_context(|| format!("{address} is not host:port"))?
        .tls_config(tls)
        .context("failed to set up TLS: check the root certificates of the bundle")?
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW);
    let pulse = Pulse::default();
    let felt = pulse.clone();
    let dial = tower::service_fn(move |_| {
        let pulse = felt.clone();
        async move {
            let stream = TcpStream::connect(target).await?;
            stream.set_nodelay(true)?;
            Ok::<_, std::io::Error>(TokioIo::new(Felt::new(stream, pulse)))
        }
    });
    let channel = endpoint.connect_with_connector(dial).await.map_err(Broken)?;
    Ok(Connection {
        channel,
        address: format!("{address} ({})", target.ip()),
        ip: target.ip(),
        pulse,
    })
}

/// A failed connection. It says all of its causes itself, each once: every layer below quotes the one under it.
#[derive(Debug)]
struct Broken(tonic::transport::Error);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The outermost one is of tonic's making and says nothing.
        let cause = self.0.source().unwrap_or(&self.0);
        f.write_str(&spell_out(cause.to_string(), cause.source()))
    }
}

impl StdError for Broken {}

/// `text` and every cause that it does not quote already.
pub(super) fn spell_out(mut text: String, mut cause: Option<&(dyn StdError + 'static)>) -> String {
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    text
}

fn remedy(error: &Error, host: &str, now: SystemTime) -> Option<String> {
    tls::remedy(&error.downcast_ref::<Broken>()?.0, host, now)
}

/// Whether a connection failed because istiod refused the certificate that this VM showed.
pub fn certificate_refused(error: &Error) -> bool {
    error
        .downcast_ref::<Broken>()
        .is_some_and(|broken| tls::certificate_refused(&broken.0))
}

/// All addresses of `host:port`, the bundle's `hosts` entries first.
async fn resolve(membership: &Membership, address: &str) -> Result<Vec<SocketAddr>> {
    let (host, port) = split(address)?;
    let known = listed(membership, address);
    if !known.is_empty() {
        return Ok(known.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found = lookup_host((host, port)).await.with_context(|| {
        format!("failed to resolve {host}: the bundle's hosts file has no line for it, and the VM's resolver doesn't know it")
    })?;
    Ok(found.collect())
}

/// The addresses that the bundle's `hosts` entries give for `host:port`; empty when it is the resolver's to know.
pub fn listed(membership: &Membership, address: &str) -> Vec<IpAddr> {
    let Ok((host, _)) = split(address) else {
        return Vec::new();
    };
    let entries = membership.hosts.iter();
    entries
        .filter(|entry| entry.names.iter().any(|name| name == host))
        .map(|entry| entry.ip)
        .collect()
}

pub(super) fn split(address: &str) -> Result<(&str, u16)> {
    let Some((host, port)) = address.rsplit_once(':') else {
        bail!("{address} is not host:port")
    };
    Ok((
        host.trim_matches(['[', ']']),
        port.parse().with_context(|| format!("{address} is not host:port"))?,
    ))
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::Instant;

    use super::*;

    /// An address that answers after so many milliseconds, or never.
    async fn answer(name: &'static str, after: Option<u64>, well: bool) -> Result<&'static str> {
        match after {
            Some(millis) => sleep(Duration::from_millis(millis)).await,
            None => pending().await,
        }
        if well { Ok(name) } else { Err(anyhow!(name)) }
    }

    #[tokio::test(start_paused = true)]
    async fn addresses_are_tried_in_order_and_a_silent_one_holds_the_next_up_only_briefly() {
        let start = Instant::now();
        let first = first_of([answer("a", Some(400), true), answer("b", Some(0), true)].into_iter()).await;
        assert_eq!((first.unwrap().unwrap(), start.elapsed().as_millis()), ("a", 400));

        let start = Instant::now();
        let first = first_of([answer("a", None, true), answer("b", Some(9), true)].into_iter()).await;
        assert_eq!((first.unwrap().unwrap(), start.elapsed().as_millis()), ("b", 509));

        let start = Instant::now();
        let first = first_of([answer("a", Some(1), false), answer("b", Some(1), true)].into_iter()).await;
        assert_eq!((first.unwrap().unwrap(), start.elapsed().as_millis()), ("b", 2));

        // The slow one wins in the end when the quick one fails.
        let tries = [answer("a", Some(900), true), answer("b", Some(1), false)];
        assert_eq!(first_of(tries.into_iter()).await.unwrap().unwrap(), "a");
        let tries = [answer("a", Some(900), false), answer("b", Some(1), false)];
        assert_eq!(first_of(tries.into_iter()).await.unwrap().unwrap_err().to_string(), "a");
        assert!(
            first_of(std::iter::empty::<std::future::Ready<Result<()>>>())
                .await
                .is_none()
        );
    }

    #[test]
    fn a_cause_is_said_once() {
        let io = std::io::Error::other("the end");
        let wrapped = std::io::Error::other(Error::new(io).context("outer: the end").into_boxed_dyn_error());
        assert_eq!(spell_out("top".to_owned(), Some(&wrapped)), "top: outer: the end");
    }

    #[test]
    fn addresses_are_split_at_the_port() {
        assert_eq!(split("istiod:15012").unwrap(), ("istiod", 15012));
        assert_eq!(split("[::1]:15012").unwrap(), ("::1", 15012));
        for wrong in ["", "istiod", "istiod:", "istiod:x", "istiod:70000"] {
            assert!(split(wrong).is_err(), "{wrong}");
        }
    }
}
