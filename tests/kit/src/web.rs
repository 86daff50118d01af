//! Web servers.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use axum::Router;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::pki::Ca;
use crate::tls;

const DAY: Duration = Duration::from_secs(86_400);

/// A server at a port of 127.0.0.1; dropped, it ends.
#[derive(Debug)]
pub struct Server {
    /// `http://127.0.0.1:PORT` or `https://127.0.0.1:PORT`.
    pub url: String,
    /// Root by which its certificate is verified.
    pub root_pem: String,
    _task: JoinSet<()>,
}

impl Server {
    /// Starts one without TLS.
    pub async fn plain(router: Router) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        Self::serve(url, String::new(), async move { axum::serve(listener, router).await })
    }

    /// Starts one with a certificate for 127.0.0.1 and localhost.
    pub async fn tls(router: Router) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", tcp.local_addr().unwrap());
        let (acceptor, root_pem) = acceptor();
        Self::serve(url, root_pem, async move {
            axum::serve(TlsListener { tcp, acceptor }, router).await
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
pub fn acceptor() -> (TlsAcceptor, String) {
    let (ca, now) = (Ca::new("web"), SystemTime::now());
    let credentials = ca.serving(&["127.0.0.1", "localhost"], now - DAY, now + DAY);
    (tls::acceptor(&credentials), ca.root_pem())
}

/// Connections of clients whose handshake succeeds.
#[expect(missing_debug_implementations, reason = "an acceptor has none")]
pub struct TlsListener {
    /// Socket that listens.
    pub tcp: TcpListener,
    /// Who the server is.
    pub acceptor: TlsAcceptor,
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, address)) = self.tcp.accept().await else {
                continue;
            };
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
