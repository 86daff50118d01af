//! The server's end of TLS.

use std::sync::Arc;

use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::time_provider::TimeProvider;
use rustls::{RootCertStore, crypto::aws_lc_rs::default_provider};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::pki::Credentials;

/// Shows `credentials`, and asks its clients for nothing.
pub fn acceptor(credentials: &Credentials) -> TlsAcceptor {
    let (chain, key) = parse(credentials);
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// For gRPC. A client may show a certificate, which is judged by `roots_pem` at the time of `clock`.
pub fn grpc_acceptor(credentials: &Credentials, roots_pem: &str, clock: Arc<dyn TimeProvider>) -> TlsAcceptor {
    let provider = Arc::new(default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(roots_pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (chain, key) = parse(credentials);
    let mut config = ServerConfig::builder_with_details(provider, clock)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(chain, key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The connections of those whose handshake succeeds; a slow one holds no other up. Accepts for as long as it is kept.
pub fn accept_all(socket: TcpListener, acceptor: TlsAcceptor) -> mpsc::Receiver<std::io::Result<TlsStream<TcpStream>>> {
    let (send, receive) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut handshakes = JoinSet::new();
        loop {
            let stream = tokio::select! {
                accepted = socket.accept() => accepted,
                () = send.closed() => return,
            };
            let Ok((stream, _)) = stream else { return };
            let (acceptor, send) = (acceptor.clone(), send.clone());
            handshakes.spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await {
                    let _ = send.send(Ok(stream)).await;
                }
            });
        }
    });
    receive
}

fn parse(credentials: &Credentials) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(credentials.certificate.as_bytes());
    let key = PrivateKeyDer::from_pem_slice(credentials.key.as_bytes());
    (chain.collect::<Result<_, _>>().unwrap(), key.unwrap())
}
