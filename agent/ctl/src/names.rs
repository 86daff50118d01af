//! Addresses of names, by /etc/hosts and the name servers of /etc/resolv.conf.
//!
//! The C library isn't asked: what it loads for that at run time has to be of its own version, and this program is linked
//! with it statically, for any Linux.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec::IntoIter;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::dns::Name;
use reqwest::dns::{Addrs, Resolve, Resolving};
use tokio::sync::OnceCell;
use tower::Service;

/// Who finds addresses. All clients of the program share what is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names;

static RESOLVER: OnceCell<TokioResolver> = OnceCell::const_new();

/// Connects by TCP to hosts by their names, for TLS too.
pub(crate) fn connector() -> HttpConnector<Names> {
    let mut connector = HttpConnector::new_with_resolver(Names);
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector
}

impl Service<Name> for Names {
    type Response = IntoIter<SocketAddr>;
    type Error = NetError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, NetError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), NetError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        Box::pin(async move { addresses(name.as_str()).await })
    }
}

impl Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        Box::pin(async move { Ok(Box::new(addresses(name.as_str()).await?) as Addrs) })
    }
}

/// The port is whatever the caller makes it.
async fn addresses(name: &str) -> Result<IntoIter<SocketAddr>, NetError> {
    let resolver = RESOLVER.get_or_try_init(async || resolver()).await?;
    let found = resolver.lookup_ip(name).await?;
    let addresses: Vec<SocketAddr> = found.iter().map(|address| (address, 0).into()).collect();
    Ok(addresses.into_iter())
}

/// Without a name server /etc/hosts alone is asked.
fn resolver() -> Result<TokioResolver, NetError> {
    let alone = || TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default());
    let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|_| alone());
    builder.options_mut().ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
    builder.build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn names_of_the_hosts_file_have_addresses() {
        let found: Vec<SocketAddr> = addresses("localhost").await.unwrap().collect();
        assert!(
            found.iter().all(|it| it.ip().is_loopback()) && !found.is_empty(),
            "{found:?}"
        );
    }
}
