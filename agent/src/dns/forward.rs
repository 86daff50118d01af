//! Queries that the mesh has no answer to, handed on unchanged to the VM's own DNS servers.
//!
//! Nothing is kept: one socket per query, whose random port is what keeps strangers' answers out.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Transport, answers, code};
use super::resolv_conf::{Current, ResolvConf};

/// The longest message.
const MAX: usize = u16::MAX as usize;

/// The VM's DNS servers.
#[derive(Debug)]
pub(super) struct Upstreams {
    current: Current,
    port: u16,
    patience: Duration,
}

impl Upstreams {
    /// `port`: theirs, 53 outside tests; `patience`: of one try at one of them.
    pub(super) fn new(current: Current, port: u16, patience: Duration) -> Self {
        Self {
            current,
            port,
            patience,
        }
    }

    /// resolv.conf as it is now.
    pub(super) fn conf(&self) -> Arc<ResolvConf> {
        self.current.get()
    }

    /// Asks the servers in their order over the same transport. The first good answer counts; one that says
    /// that the server can't or won't help counts only when no other server has a better one.
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let mut excuse = None;
        for server in &self.conf().servers {
            let server = SocketAddr::new(*server, self.port);
            let tried = timeout(self.patience, async {
                match transport {
                    Transport::Udp => ask_udp(server, query).await,
                    Transport::Tcp => ask_tcp(server, query).await,
                }
            });
            match tried.await {
                Ok(Ok(reply)) if is_excuse(&reply) => excuse = Some(reply),
                Ok(Ok(reply)) => return Some(reply),
                Ok(Err(error)) => tracing::debug!(%server, "failed to ask an upstream DNS server: {error}"),
                Err(_) => tracing::debug!(%server, "no answer from an upstream DNS server within {:?}", self.patience),
            }
        }
        excuse
    }
}

fn is_excuse(reply: &[u8]) -> bool {
    matches!(
        code(reply),
        Some(ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused)
    )
}

async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; MAX];
    loop {
        let length = socket.recv(&mut reply).await?;
        if reply.get(..length).is_some_and(|reply| answers(reply, query)) {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    send_framed(&mut stream, query).await?;
    let reply = receive_framed(&mut stream).await?;
    if !answers(&reply, query) {
        return Err(io::Error::other("it answered another query"));
    }
    Ok(reply)
}

/// One message over TCP: its length, then itself, in one segment (RFC 7766, 8).
pub(super) async fn send_framed(stream: &mut (impl AsyncWrite + Unpin), message: &[u8]) -> io::Result<()> {
    let length = u16::try_from(message.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await
}

/// The next message of a TCP connection.
pub(super) async fn receive_framed(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}
