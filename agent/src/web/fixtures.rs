//! Servers on 127.0.0.1 for tests: plain, or TLS under a CA of their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// A running server; dropped, it ends.
#[derive(Debug)]
pub(crate) struct Server {
    /// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    pub(crate) url: String,
    /// Root that the server's certificate is to be verified with.
    pub(crate) root_pem: String,
    _task: JoinSet<()>,
}

impl Server {
    /// Without TLS.
    pub(crate) async fn plain(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(url, String::new(), async move { axum::serve(listener, router).await })
    }

    /// With a certificate for 127.0.0.1 and localhost.
    pub(crate) async fn tls(router: Router) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", tcp.local_addr().unwrap());
        let (acceptor, root_pem) = acceptor();
        Self::serve(url, root_pem, async move {
            axum::serve(Listener { tcp, acceptor }, router).await
        })
    }

    fn serve(url: String, root_pem: String, serve: impl Future<Output = io::Result<()>> + Send + 'static) -> Self {
        let mut task = JoinSet::new();
        task.spawn(async move { serve.await.unwrap() });
        Self {
            url,
            root_pem,
            _task: task,
        }
    }
}

/// TLS for 127.0.0.1 and localhost, and the root that vouches for it.
pub(crate) fn acceptor() -> (TlsAcceptor, String) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, &root).unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), root.pem())
}

struct Listener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl axum::serve::Listener for Listener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            // A client that doesn't trust us is what some tests are about.
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}
