//! gRPC servers with TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::time_provider::DefaultTimeProvider;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Router;

use crate::pki::Credentials;
use crate::tls;

/// A server at this address, any port if it is 0, whose clients may show a certificate by `roots_pem`: its port, and
/// what serves for as long as it is polled.
pub async fn serve(
    address: impl Into<SocketAddr>,
    credentials: &Credentials,
    roots_pem: &str,
    router: Router,
) -> (
    u16,
    impl Future<Output = Result<(), tonic::transport::Error>> + Send + 'static,
) {
    let listener = TcpListener::bind(address.into()).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = tls::grpc_acceptor(credentials, roots_pem, Arc::new(DefaultTimeProvider));
    let connections = ReceiverStream::new(tls::accept_all(listener, acceptor));
    (port, router.serve_with_incoming(connections))
}
