//! A connection to istiod: all addresses of a name in order, TLS, HTTP/2.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Error, Result, anyhow};
use futures_util::stream::{FuturesUnordered, StreamExt};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use super::failure::{self, ConnectError, Unresolved};
use super::liveness::{self, LastActivity};
use super::presented;
use crate::facts::{Credentials, HostPort, Membership};

/// Time that an address is waited for before the next one of the same name is tried beside it ("Connection Attempt
/// Delay", RFC 8305, section 5).
const CONNECTION_ATTEMPT_DELAY: Duration = Duration::from_millis(500);
/// Istio's GRPC_KEEPALIVE_INTERVAL (istio/pkg/keepalive/options.go). istiod hangs up on a client that pings more often.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// Istio's GRPC_KEEPALIVE_TIMEOUT (istio/pkg/keepalive/options.go).
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// HTTP/2 window of a stream (istio/pilot/pkg/grpc/grpc.go), in bytes; the connection's is twice that, so that a stream
/// that nobody reads doesn't stop the others.
const STREAM_WINDOW: u32 = 1 << 20;

/// A connection, and the address it went to.
#[derive(Debug)]
pub struct Connection {
    /// Channel for a generated client.
    pub channel: Channel,
    /// `host:port (ip)`.
    pub address: String,
    /// Address behind the name.
    pub ip: IpAddr,
    /// The VM's own address on the connection.
    pub source: IpAddr,
    activity: LastActivity,
}

impl Connection {
    /// Completes when the connection is dead, with the reason. Holds no part of it: dropping it ends the watch.
    pub fn wait_dead(&self) -> impl Future<Output = Error> + Send + use<> {
        liveness::wait_dead(self.channel.clone(), self.activity.clone(), self.address.clone())
    }

    /// Fails when no gRPC server answers on it within 2 s.
    pub async fn is_alive(&self) -> Result<()> {
        liveness::probe(self.channel.clone())
            .await
            .with_context(|| format!("istiod at {} doesn't answer", self.address))
    }
}

/// Connects to `address` (`host:port`) with TLS: istiod proves its name under the mesh's roots, and the VM
/// shows its certificate when it has a valid one. Each address of the name is given `limit`, the later ones
/// beside the earlier, and the first that answers wins.
///
/// # Errors
/// When no address answers; it names the cause and the remedy.
pub async fn connect(
    membership: &Membership,
    address: &str,
    credentials: Option<&Credentials>,
    now: SystemTime,
    limit: Duration,
) -> Result<Connection> {
    let HostPort { host, .. } = HostPort::parse(address)?;
    let tls = tls_config(membership, host, credentials, now);
    let found = timeout(limit, resolve(membership, address))
        .await
        .map_err(|_| Unresolved {
            host: host.to_owned(),
            cause: format!("the VM's resolver gave no answer within {limit:?}"),
        })??;
    let attempts = found.into_iter().map(|target| {
        let tls = tls.clone();
        async move {
            let connected = timeout(limit, connect_to(address, target, tls)).await;
            let connected = connected
                .map_err(|_| anyhow!("no answer within {limit:?}: check routes and firewalls"))
                .flatten();
            let error = match connected {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            let remedy = match failure::is_of_unknown_critical(&error) {
                true => {
                    let named = timeout(limit, presented::with_unknown_critical(target, host)).await;
                    Some(failure::reissue(named.ok().flatten().as_deref()))
                }
                false => failure::remedy(&error, host, now),
            };
            let error = remedy.into_iter().fold(error, Error::context);
            Err(error.context(format!("failed to connect to istiod at {address} ({})", target.ip())))
        }
    });
    happy_eyeballs(attempts)
        .await
        .unwrap_or_else(|| Err(anyhow!("{host} has no address")))
}

/// The first success of `attempts` (RFC 8305), which begin one after another: each when all before it have failed, or
/// [`CONNECTION_ATTEMPT_DELAY`] after the one before it. The error is the last one's; `None` when there is nothing to try.
async fn happy_eyeballs<T>(attempts: impl Iterator<Item = impl Future<Output = Result<T>>>) -> Option<Result<T>> {
    let (mut running, mut failure) = (FuturesUnordered::new(), None);
    // None ends the list: nothing is begun then, and those that run are waited for without a limit.
    for attempt in attempts.map(Some).chain([None]) {
        let delay = attempt.as_ref().map_or(Duration::MAX, |_| CONNECTION_ATTEMPT_DELAY);
        running.extend(attempt);
        while let Ok(Some(ended)) = timeout(delay, running.next()).await {
            match ended {
                Ok(connected) => return Some(Ok(connected)),
                Err(error) => {
                    tracing::debug!("{error:#}");
                    failure = Some(error);
                }
            }
        }
    }
    failure.map(Err)
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
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(2 * STREAM_WINDOW);
    let activity = LastActivity::default();
    let metered = activity.clone();
    let source = Arc::new(OnceLock::new());
    let found = Arc::clone(&source);
    let dial = tower::service_fn(move |_| {
        let (activity, found) = (metered.clone(), Arc::clone(&found));
        async move {
            let stream = TcpStream::connect(target).await?;
            let _ = found.set(stream.local_addr()?.ip());
            stream.set_nodelay(true)?;
            // What istiod has not received of a connection that is given up must not reach it after what another one has
            // brought since: the kernel would send it on once the VM has the connection's address back.
            stream.set_zero_linger()?;
            Ok::<_, std::io::Error>(TokioIo::new(activity.metered(stream)))
        }
    });
    let channel = endpoint.connect_with_connector(dial).await.map_err(ConnectError)?;
    Ok(Connection {
        channel,
        address: format!("{address} ({})", target.ip()),
        ip: target.ip(),
        source: source.get().copied().context("a connection without a socket")?,
        activity,
    })
}

/// All addresses of `host:port`, the bundle's `hosts` entries first.
async fn resolve(membership: &Membership, address: &str) -> Result<Vec<SocketAddr>> {
    let HostPort { host, port } = HostPort::parse(address)?;
    let known = listed_addresses(membership, address);
    if !known.is_empty() {
        return Ok(known.into_iter().map(|ip| SocketAddr::new(ip, port)).collect());
    }
    let found = lookup_host((host, port)).await.map_err(|error| Unresolved {
        host: host.to_owned(),
        cause: format!("the bundle's hosts file has no line for it, and the VM's resolver doesn't know it: {error}"),
    })?;
    Ok(found.collect())
}

/// Addresses that the bundle's `hosts` entries give for `host:port`; empty when it is the resolver's to know.
pub fn listed_addresses(membership: &Membership, address: &str) -> Vec<IpAddr> {
    let Ok(HostPort { host, .. }) = HostPort::parse(address) else {
        return Vec::new();
    };
    let entries = membership.hosts.iter();
    entries
        .filter(|entry| entry.names.iter().any(|name| name == host))
        .map(|entry| entry.ip)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::{Instant, sleep};

    use super::*;

    /// An attempt that ends after so many milliseconds, or never.
    async fn answer(name: &'static str, after: Option<u64>, well: bool) -> Result<&'static str> {
        match after {
            Some(millis) => sleep(Duration::from_millis(millis)).await,
            None => pending().await,
        }
        if well { Ok(name) } else { Err(anyhow!(name)) }
    }

    #[tokio::test(start_paused = true)]
    async fn happy_eyeballs_tries_addresses_in_order_and_waits_for_a_silent_one_only_briefly() {
        let start = Instant::now();
        let first = happy_eyeballs([answer("a", Some(400), true), answer("b", Some(0), true)].into_iter()).await;
        assert_eq!((first.unwrap().unwrap(), start.elapsed().as_millis()), ("a", 400));

        let start = Instant::now();
        let first = happy_eyeballs([answer("a", None, true), answer("b", Some(9), true)].into_iter()).await;
        assert_eq!((first.unwrap().unwrap(), start.elapsed().as_millis()), ("b", 509));

        let start = Instant::now();
        let first = happy_eyeballs([answer("a", Some(1), false), answer("b", Some(1), true)].into_iter()).await;
        assert_eq!((first.unwrap().unwrap(), start.elapsed().as_millis()), ("b", 2));

        // The slow one wins in the end when the quick one fails.
        let attempts = [answer("a", Some(900), true), answer("b", Some(1), false)];
        assert_eq!(happy_eyeballs(attempts.into_iter()).await.unwrap().unwrap(), "a");
        let attempts = [answer("a", Some(900), false), answer("b", Some(1), false)];
        assert_eq!(
            happy_eyeballs(attempts.into_iter())
                .await
                .unwrap()
                .unwrap_err()
                .to_string(),
            "a"
        );
        assert!(
            happy_eyeballs(std::iter::empty::<std::future::Ready<Result<()>>>())
                .await
                .is_none()
        );
    }
}
