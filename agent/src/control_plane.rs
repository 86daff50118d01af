//! How istiod is reached: name resolution, TLS, and what a call proves itself with. Used by `identity` and `xds`.
//!
//! The VM's resolver is the last resort: the bundle's `hosts` entries come first, so that a broken /etc/hosts
//! or a captured DNS never cuts the VM off its control plane. Always over TLS: a token never travels in the clear.

#[cfg(test)]
pub(crate) mod fixtures;
mod proof;
mod tls;
pub mod token;

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, anyhow, bail};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::facts::{Credentials, Membership};

pub use proof::Proof;
use token::{Token, TokenSource};

/// Deadline of TCP, TLS and HTTP/2 set-up together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Istio's GRPC_KEEPALIVE_INTERVAL and GRPC_KEEPALIVE_TIMEOUT (istio/pkg/keepalive/options.go).
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(10));
/// HTTP/2 windows (istio/pilot/pkg/grpc/grpc.go).
const WINDOW: u32 = 1 << 20;

/// A connection, and the address it went to.
#[derive(Debug)]
pub struct Connection {
    /// For a generated client.
    pub channel: Channel,
    /// `host:port (ip)`.
    pub address: String,
}

/// Connects to `address` (`host:port`) with TLS: istiod proves its name under the mesh's roots, and the VM
/// shows its certificate when it has a valid one. An error names its cause and the remedy.
pub async fn connect(
    membership: &Membership,
    address: &str,
    credentials: Option<&Credentials>,
    now: SystemTime,
) -> Result<Connection> {
    let (host, _) = split(address)?;
    let tls = tls_config(membership, host, credentials, now);
    let mut failure = anyhow!("{host} has no address");
    for target in resolve(membership, address).await? {
        match connect_to(address, target, tls.clone()).await {
            Ok(channel) => {
                return Ok(Connection {
                    channel,
                    address: format!("{address} ({})", target.ip()),
                });
            }
            Err(error) => {
                let remedy = tls::remedy(error.as_ref(), host, now);
                failure = match remedy {
                    Some(remedy) => error.context(remedy),
                    None => error,
                }
                .context(format!("failed to connect to istiod at {address} ({})", target.ip()));
                // The caller is told of the last one only.
                tracing::debug!("{failure:#}");
            }
        }
    }
    Err(failure)
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

async fn connect_to(address: &str, target: SocketAddr, tls: ClientTlsConfig) -> Result<Channel> {
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .with_context(|| format!("{address} is not host:port"))?
        .tls_config(tls)
        .context("failed to set up TLS: check the root certificates of the bundle")?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let dial =
        tower::service_fn(move |_| async move { Ok::<_, io::Error>(TokioIo::new(TcpStream::connect(target).await?)) });
    tokio::time::timeout(CONNECT_TIMEOUT, endpoint.connect_with_connector(dial))
        .await
        .map_err(|_| anyhow!("no answer within {CONNECT_TIMEOUT:?}: check routes and firewalls"))?
        .map_err(anyhow::Error::from)
}

/// Whether a connection failed because istiod refused the certificate that this VM showed.
pub fn certificate_refused(error: &anyhow::Error) -> bool {
    tls::certificate_refused(error.as_ref())
}

/// All addresses of `host:port`, the bundle's `hosts` entries first.
async fn resolve(membership: &Membership, address: &str) -> Result<Vec<SocketAddr>> {
    let (host, port) = split(address)?;
    let known: Vec<SocketAddr> = membership
        .hosts
        .iter()
        .filter(|entry| entry.names.iter().any(|name| name == host))
        .map(|entry| SocketAddr::new(entry.ip, port))
        .collect();
    if !known.is_empty() {
        return Ok(known);
    }
    let found = lookup_host((host, port)).await.with_context(|| {
        format!("failed to resolve {host}: the bundle's hosts file has no line for it, and the VM's resolver doesn't know it")
    })?;
    Ok(found.collect())
}

fn split(address: &str) -> Result<(&str, u16)> {
    let Some((host, port)) = address.rsplit_once(':') else {
        bail!("{address} is not host:port")
    };
    Ok((
        host.trim_matches(['[', ']']),
        port.parse().with_context(|| format!("{address} is not host:port"))?,
    ))
}

/// Headers of a call: the cluster whose API server judges the token, and a token when the connection shows no
/// certificate. Tokens are had anew for each call: from `tokens`, or else from the membership's file, which
/// something else refreshes. Says what the call proves itself with, so that a refusal can be explained.
pub async fn authorize(
    metadata: &mut MetadataMap,
    membership: &Membership,
    credentials: Option<&Credentials>,
    tokens: Option<&dyn TokenSource>,
    now: SystemTime,
) -> Result<Proof> {
    let cluster = membership
        .cluster_id
        .parse::<MetadataValue<Ascii>>()
        .with_context(|| format!("the cluster id {:?} can't be sent in a header", membership.cluster_id))?;
    metadata.insert("clusterid", cluster);
    if credentials.is_some_and(|credentials| credentials.valid_at(now)) {
        return Ok(Proof::Certificate);
    }
    let Some((place, token)) = find_token(membership, tokens).await? else {
        return Ok(Proof::Nothing);
    };
    let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.expose())
        .parse()
        .map_err(|_| anyhow!("{place}: holds no JWT"))?;
    // Keeps it out of `Debug` and out of HPACK's tables.
    value.set_sensitive(true);
    metadata.insert("authorization", value);
    Ok(Proof::Token {
        place,
        claims: token.claims(),
    })
}

/// A fresh token of the source, else the one in the file.
async fn find_token(membership: &Membership, tokens: Option<&dyn TokenSource>) -> Result<Option<(String, Token)>> {
    let file = membership.token_file.as_deref();
    if let Some(source) = tokens {
        match source.token().await {
            Ok(token) => return Ok(Some((source.place(), token))),
            Err(error) if file.is_none() => return Err(error),
            Err(error) => tracing::warn!("no token from {}, trying the file: {error:#}", source.place()),
        }
    }
    file.map(|path| Ok((path.display().to_string(), Token::read(path)?)))
        .transpose()
}

#[cfg(test)]
mod tests;
