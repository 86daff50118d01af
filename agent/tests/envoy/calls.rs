//! Calls to the VM, through Envoy.

use kit::PATIENCE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Goes through a case while its listener leads to a server.
pub(crate) async fn with_echoes(case: impl Future<Output = ()>) {
    tokio::select! {
        () = case => {}
        () = serve_echoes() => {}
    }
}

/// Serves what the listener of these cases leads to: echoes until the caller is done.
async fn serve_echoes() {
    let listener = TcpListener::bind("127.0.0.1:15020").await.unwrap();
    let mut calls = JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        calls.spawn(async move {
            let (mut from, mut to) = stream.split();
            let _ = tokio::io::copy(&mut from, &mut to).await;
        });
    }
}

/// A call through Envoy's inbound listener, which goes on.
pub(crate) async fn call() -> TcpStream {
    let mut stream = TcpStream::connect("127.0.0.1:15006").await.unwrap();
    echo(&mut stream).await;
    stream
}

/// Says something, and hears it again.
pub(crate) async fn echo(stream: &mut TcpStream) {
    stream.write_all(b"ping").await.unwrap();
    let mut answer = [0; 4];
    let heard = timeout(PATIENCE, stream.read_exact(&mut answer)).await;
    heard.expect("an answer").unwrap();
    assert_eq!(&answer, b"ping");
}
