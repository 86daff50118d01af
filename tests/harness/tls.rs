//! The server's end of TLS.

use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::clock::Clock;
use crate::pki::Credentials;

/// Shows `credentials`, and asks its clients for nothing.
pub(crate) fn acceptor(credentials: &Credentials) -> Result<TlsAcceptor> {
    let (chain, key) = parse(credentials)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// For gRPC. A client may show a certificate, which is judged by `roots_pem` at the time of `clock`.
pub(crate) fn grpc_acceptor(credentials: &Credentials, roots_pem: &str, clock: Arc<Clock>) -> Result<TlsAcceptor> {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root?)?;
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()?;
    let (chain, key) = parse(credentials)?;
    let mut config = ServerConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The connections of those whose handshake succeeds; a slow one holds no other up.
pub(crate) fn accept_all(
    socket: TcpListener,
    acceptor: TlsAcceptor,
) -> mpsc::Receiver<std::io::Result<TlsStream<TcpStream>>> {
    let (send, receive) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((stream, _)) = socket.accept().await {
            let (acceptor, send) = (acceptor.clone(), send.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = send.send(Ok(stream)).await;
                }
            });
        }
    });
    receive
}

fn parse(credentials: &Credentials) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let certificate = CertificateDer::from_pem_slice(credentials.certificate.as_bytes()).context("no certificate")?;
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes()).context("no key")?;
    Ok((vec![certificate], key))
}
