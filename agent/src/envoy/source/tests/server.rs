//! An HTTPS server to download from.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use kit::web::acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{CA_FILE, Vm};
use crate::config::EnvoyConfig;
use crate::supervise::Scope;

/// The answer of an HTTPS server, whatever it is asked: head and body as they are; then it ends the connection or,
/// without a body, waits for ever.
#[derive(Clone)]
pub(super) struct Answer(pub(super) String, pub(super) Option<Vec<u8>>);

pub(super) fn ok(length: usize, body: &[u8]) -> Answer {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n");
    Answer(head, Some(body.to_vec()))
}

pub(super) fn to(url: &str) -> Answer {
    let head = format!("HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n");
    Answer(head, Some(Vec::new()))
}

/// A server that gives each of its answers once, and the last one for ever.
pub(super) struct Server {
    pub(super) url: String,
    root_pem: String,
    asked: Arc<Mutex<usize>>,
    _stop: tokio_util::sync::DropGuard,
}

impl Server {
    pub(super) async fn of(answers: impl IntoIterator<Item = Answer>) -> Self {
        let (acceptor, root_pem) = acceptor();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/envoy", listener.local_addr().unwrap());
        let (scope, stop): (Scope, CancellationToken) = Scope::detached();
        let asked = Arc::new(Mutex::new(0));
        let counter = Arc::clone(&asked);
        let mut answers: VecDeque<Answer> = answers.into_iter().collect();
        scope.clone().spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                // Paused time would not wait for Nagle's algorithm.
                stream.set_nodelay(true).unwrap();
                *counter.lock().unwrap() += 1;
                let answer = if answers.len() > 1 {
                    answers.pop_front()
                } else {
                    answers.front().cloned()
                };
                let acceptor = acceptor.clone();
                scope.spawn(async move {
                    let _ = serve(acceptor.accept(stream).await, answer.unwrap()).await;
                });
            }
        });
        Self {
            url,
            root_pem,
            asked,
            _stop: stop.drop_guard(),
        }
    }

    pub(super) fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }

    pub(super) fn vm(&self, sha256: &str) -> Vm {
        let vm = Vm::new(EnvoyConfig {
            url: Some(self.url.clone()),
            sha256: Some(sha256.to_owned()),
            ca_file: Some(CA_FILE.into()),
            ..EnvoyConfig::default()
        });
        let host = &vm.options.host;
        host.write(Path::new(CA_FILE), &self.root_pem, 0o644, None).unwrap();
        vm
    }
}

async fn serve(
    stream: std::io::Result<impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin>,
    Answer(head, body): Answer,
) -> std::io::Result<()> {
    let (mut stream, mut request) = (stream?, Vec::new());
    while !request.ends_with(b"\r\n\r\n") {
        request.push(stream.read_u8().await?);
    }
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    let Some(body) = body else {
        return std::future::pending().await;
    };
    stream.write_all(&body).await?;
    stream.shutdown().await
}
