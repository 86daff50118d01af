//! Queries that the mesh has no answer to, handed on to the VM's own DNS servers, unchanged but for the id.
//!
//! One socket and one random id per query and server, which is what keeps strangers' answers out: the client's own id is
//! known to whoever has it ask.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use hickory_proto::op::ResponseCode;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{Transport, answers, code};
use super::resolv_conf::Current;
use crate::host::ResolvConf;

/// Longest message, in bytes.
const MAX_MESSAGE: usize = u16::MAX as usize;
/// Most servers that are asked: as many as the C library asks (resolv.conf(5), MAXNS).
const MAX_SERVERS: usize = 3;
/// Head starts in a row that a server let go by, from which on it is taken for dead.
const SILENCES_OF_DEAD: u32 = 3;
/// Start that a server has on the next one, whose answer counts as much; one that is taken for dead has none. Nearly all
/// answers come sooner, those that other servers have to be asked for too.
const HEAD_START: Duration = Duration::from_millis(400);
/// Most packets to a query's port that are no answer to it: after more somebody is taken to be guessing.
const MAX_GUESSES: usize = 32;

/// The VM's DNS servers.
#[derive(Debug)]
pub(super) struct Upstreams {
    current: Current,
    port: u16,
    query_timeout: Duration,
    /// Number of head starts in a row that each let go by; those that answered last have no entry.
    silent: Mutex<HashMap<SocketAddr, u32>>,
}

impl Upstreams {
    /// `port` of the servers, 53 outside tests; `query_timeout` of one query to one of them.
    pub(super) fn new(current: Current, port: u16, query_timeout: Duration) -> Self {
        Self {
            current,
            port,
            query_timeout,
            silent: Mutex::default(),
        }
    }

    /// resolv.conf as it is now.
    pub(super) fn conf(&self) -> Arc<ResolvConf> {
        self.current.get()
    }

    /// The servers' addresses, which a client's socket may take for its peer when its query was redirected to us.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        let conf = self.conf();
        // An interface may come later than its server's name.
        let servers = conf
            .servers
            .iter()
            .filter_map(|server| server.socket_address(self.port));
        servers.take(MAX_SERVERS).collect()
    }

    /// Asks the servers in their order over the same transport. The first good answer counts; one that says
    /// that the server can't or won't help counts only when no other server has a better one.
    pub(super) async fn ask(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let mut servers = self.addresses().into_iter();
        let mut queries = FuturesUnordered::new();
        let mut failure = None;
        loop {
            let next = servers.next();
            queries.extend(next.map(|server| self.ask_one(server, query, transport)));
            match timeout(self.head_start(next), queries.next()).await {
                Ok(None) => return failure,
                Ok(Some(Some(reply))) if is_server_failure(&reply) => failure = Some(reply),
                Ok(Some(Some(reply))) => return Some(reply),
                // The next one then, beside those that may still answer.
                Ok(Some(None)) => {}
                Err(_) => next.into_iter().for_each(|server| self.missed(server)),
            }
        }
    }

    async fn ask_one(&self, server: SocketAddr, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let id = query.first_chunk::<2>()?;
        let answer = timeout(self.query_timeout, async {
            let query = with_id(query, random_id()?);
            match transport {
                Transport::Udp => ask_udp(server, &query).await,
                Transport::Tcp => ask_tcp(server, &query).await,
            }
        });
        match answer.await {
            Ok(Ok(reply)) => {
                self.silent().remove(&server);
                Some(with_id(&reply, *id))
            }
            Ok(Err(error)) => {
                tracing::debug!(%server, "failed to ask an upstream DNS server: {error}");
                None
            }
            Err(_) => {
                tracing::debug!(%server, "no answer from an upstream DNS server within {:?}", self.query_timeout);
                None
            }
        }
    }

    /// Counts a head start that `server` let go by. It may answer yet, and has missed nothing then.
    fn missed(&self, server: SocketAddr) {
        let current = self.addresses();
        let mut silent = self.silent();
        silent.retain(|server, _| current.contains(server));
        let times = silent.entry(server).or_default();
        *times = times.saturating_add(1);
    }

    /// Time that `server` is waited for before the next one is asked too; with none left, all that was asked have theirs.
    pub(super) fn head_start(&self, server: Option<SocketAddr>) -> Duration {
        match server.map(|server| self.silent().get(&server).copied()) {
            None => self.query_timeout,
            Some(Some(SILENCES_OF_DEAD..)) => Duration::ZERO,
            Some(_) => HEAD_START.min(self.query_timeout),
        }
    }

    fn silent(&self) -> MutexGuard<'_, HashMap<SocketAddr, u32>> {
        self.silent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// True when a reply says that its server can't help or won't, and so nothing about the name.
pub(super) fn is_server_failure(reply: &[u8]) -> bool {
    matches!(
        code(reply),
        Some(ResponseCode::ServFail | ResponseCode::NotImp | ResponseCode::Refused)
    )
}

pub(super) fn random_id() -> io::Result<[u8; 2]> {
    let mut id = [0; 2];
    aws_lc_rs::rand::fill(&mut id).map_err(|_| io::Error::other("no random number for its id"))?;
    Ok(id)
}

fn with_id(message: &[u8], id: [u8; 2]) -> Vec<u8> {
    [&id, message.get(id.len()..).unwrap_or_default()].concat()
}

pub(super) async fn ask_udp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    for _ in 0..MAX_GUESSES {
        // That nobody listens there is an error of the socket, and nothing to be read.
        let ready = socket.ready(Interest::READABLE | Interest::ERROR).await?;
        if ready.is_error()
            && let Some(error) = socket.take_error()?
        {
            return Err(error);
        }
        match receive(&socket, query) {
            Ok(Some(reply)) => return Ok(reply),
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("somebody guesses at its answers"))
}

/// The packet that has come, when it is the answer. The buffer that it is read into is given back before the next wait:
/// hundreds may wait.
fn receive(socket: &UdpSocket, query: &[u8]) -> io::Result<Option<Vec<u8>>> {
    let mut buffer = [0; MAX_MESSAGE];
    let length = socket.try_recv(&mut buffer)?;
    let reply = buffer.get(..length).filter(|reply| answers(reply, query));
    Ok(reply.map(<[u8]>::to_vec))
}

pub(super) async fn ask_tcp(server: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn server_that_nobody_is_at_is_given_up_at_once() {
        let closed = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = closed.local_addr().unwrap();
        drop(closed);
        let asked = timeout(Duration::from_secs(20), ask_udp(address, b"query")).await;
        let error = asked.expect("it waits for an answer").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
