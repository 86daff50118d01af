//! The server: who answers what comes in on the sockets.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt, select_all};
use futures_util::stream::{self, FuturesUnordered, StreamExt};
use hickory_proto::op::ResponseCode;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::cache::{Cache, Cached, addressed, key};
use super::fast_path;
use super::forward::{Upstreams, is_server_failure, receive_framed, send_framed};
use super::in_flight::InFlight;
use super::message::{self, OUR_PAYLOAD, Packet, Transport};
use super::sockets::Sockets;
use super::table::Table;
use crate::bounds::{Client, Place, Refusals, Shares};
use crate::facts::{DnsCounts, HostState};
use crate::host::{Protocol, socket_owner};
use crate::supervise::Scope;

/// Most queries that wait for an upstream at a time, each with a socket, so that dead upstreams can't take the files that the
/// rest of the agent needs. Who has to give way gets SERVFAIL.
const MAX_FORWARDS: usize = 256;
/// Time that a client's query is given before a newer one of the same client takes its place: most answers take less. So no
/// client has us ask the upstreams more than a thousand times a second in vain.
const MIN_FORWARD_TIME: Duration = Duration::from_millis(250);
/// Most TCP connections at a time. Who has to give way is closed.
const MAX_CONNECTIONS: usize = 128;
/// Most queries of one connection that wait for an upstream; more are read once these are answered.
const MAX_PIPELINED: usize = 32;
/// Most of either for containers.
const MAX_OF_CONTAINERS: usize = 64;
/// Longest query over UDP, in bytes, as we tell in EDNS.
const MAX_UDP: usize = OUR_PAYLOAD as usize;
/// Time after which a TCP client that says nothing is gone (RFC 7766, 6.2.3).
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time after which a client that there is an old answer for gets it, while the servers are waited for no more (RFC 8767, 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);
/// Pause after a socket error, which out of memory or out of files gives without end.
pub(super) const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Answers queries from the table, and hands the others on.
#[derive(Clone, Debug)]
pub(super) struct Server {
    table: watch::Receiver<Arc<Table>>,
    upstreams: Arc<Upstreams>,
    cache: Arc<Cache>,
    in_flight: Arc<InFlight>,
    machine: watch::Receiver<HostState>,
    users: Room,
    containers: Room,
    counts: DnsCounts,
}

/// Places. Containers' are apart from those of this VM's users: one that sends as anybody on its bridge is as many clients as
/// it likes.
#[derive(Clone, Debug)]
struct Room {
    forwards: Shares,
    connections: Shares,
}

/// The action that a packet calls for.
enum Action {
    /// Reply with this.
    Reply(Vec<u8>),
    /// Ask the upstreams, and reply with this when none has an answer.
    Forward(Fallback),
    Ignore,
}

/// The reply when no upstream has an answer.
struct Fallback {
    /// An answer of before, else a failure.
    reply: Vec<u8>,
    /// True for an answer of before.
    is_stale: bool,
}

impl Server {
    pub(super) fn new(
        table: watch::Receiver<Arc<Table>>,
        upstreams: Upstreams,
        machine: watch::Receiver<HostState>,
        refusals: Refusals,
        counts: DnsCounts,
    ) -> Self {
        Self {
            table,
            upstreams: Arc::new(upstreams),
            cache: Arc::default(),
            in_flight: Arc::default(),
            machine,
            users: Room {
                forwards: Shares::new("DNS forwards", MAX_FORWARDS, MIN_FORWARD_TIME, refusals.clone()),
                connections: Shares::new("DNS connections", MAX_CONNECTIONS, Duration::ZERO, refusals.clone()),
            },
            containers: Room {
                forwards: Shares::new(
                    "DNS forwards of containers",
                    MAX_OF_CONTAINERS,
                    MIN_FORWARD_TIME,
                    refusals.clone(),
                ),
                connections: Shares::new(
                    "DNS connections of containers",
                    MAX_OF_CONTAINERS,
                    Duration::ZERO,
                    refusals,
                ),
            },
            counts,
        }
    }

    /// Serves in the background until the drain: UDP on a thread of its own, which no work of the agent's other parts can
    /// keep from the next query.
    pub(super) fn serve(&self, scope: &Scope, mut sockets: Sockets) -> io::Result<()> {
        let udp = std::mem::take(&mut sockets.udp);
        scope.spawn_thread("dns", || {
            let udp = udp.into_iter().map(|socket| UdpSocket::from_std(socket.into_std()?));
            let sockets = Sockets {
                udp: udp.collect::<io::Result<_>>()?,
                ..Sockets::default()
            };
            let readers = self.readers(scope, sockets);
            Ok(async { select_all(readers).await.0 })
        })?;
        for reader in self.readers(scope, sockets) {
            scope.spawn_loop(reader);
        }
        Ok(())
    }

    /// A reader for each socket, which takes what comes in for as long as it is polled. What it began goes on in the scope.
    pub(super) fn readers(&self, scope: &Scope, sockets: Sockets) -> Vec<BoxFuture<'static, Infallible>> {
        let udp = sockets.udp.into_iter();
        let udp = udp.map(|socket| self.clone().serve_udp(scope.clone(), socket).boxed());
        let tcp = sockets.tcp.into_iter();
        let tcp = tcp.map(|listener| self.clone().serve_tcp(scope.clone(), listener).boxed());
        udp.chain(tcp).collect()
    }

    async fn serve_udp(self, scope: Scope, socket: UdpSocket) -> Infallible {
        let own = socket.local_addr().ok();
        let socket = Arc::new(socket);
        // One byte more, to tell what is too long.
        let mut buffer = vec![0; MAX_UDP + 1];
        let mut reply = Vec::with_capacity(MAX_UDP);
        loop {
            let (length, client) = match socket.recv_from(&mut buffer).await {
                Ok(received) => received,
                Err(error) => {
                    tracing::warn!("failed to receive a DNS query: {error}");
                    sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            if !self.is_for(client, own) {
                continue;
            }
            let packet = buffer.get(..length).unwrap_or_default();
            if fast_path::answer(packet, &self.table.borrow(), &self.upstreams.conf().search, &mut reply) {
                self.counts.requests.inc();
                send(&socket, &reply, client).await;
                continue;
            }
            match self.decide(packet, Transport::Udp) {
                // Here and now, so that the mesh's names never wait behind an upstream.
                Action::Reply(reply) => send(&socket, &reply, client).await,
                Action::Ignore => {}
                Action::Forward(fallback) => {
                    let owner = self.client_of(Protocol::Udp, client, own);
                    let Some(place) = self.room(owner, own).forwards.take(owner) else {
                        send(&socket, &fallback.reply, client).await;
                        continue;
                    };
                    let (server, socket, query) = (self.clone(), Arc::clone(&socket), packet.to_vec());
                    scope.spawn(async move {
                        let reply = server.forward(&query, Transport::Udp, &place, fallback).await;
                        send(&socket, &reply, client).await;
                    });
                }
            }
        }
    }

    async fn serve_tcp(self, scope: Scope, listener: TcpListener) -> Infallible {
        let own = listener.local_addr().ok();
        loop {
            let (stream, client) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!("failed to accept a DNS connection: {error}");
                    sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            if !self.is_for(client, own) {
                continue;
            }
            let owner = self.client_of(Protocol::Tcp, client, stream.local_addr().ok());
            let room = self.room(owner, own).clone();
            let Some(place) = room.connections.take(owner) else {
                continue;
            };
            let server = self.clone();
            scope.spawn(async move {
                tokio::select! {
                    // A client that goes away is no news.
                    _ = server.converse(stream, owner, &room.forwards, &place) => {}
                    () = place.lost() => {}
                }
            });
        }
    }

    /// One connection, until the client is done or idle: what we know is answered at once, beside what the upstreams are asked
    /// (RFC 7766, 6.2.1.1).
    async fn converse(&self, mut stream: TcpStream, owner: Client, forwards: &Shares, place: &Place) -> io::Result<()> {
        let (reads, mut writes) = stream.split();
        let packets = stream::unfold(reads, |mut reads| async move {
            let packet = receive_framed(&mut reads).await.ok()?;
            Some((packet, reads))
        });
        let mut packets = std::pin::pin!(packets);
        let (mut is_open, mut forwarded) = (true, FuturesUnordered::new());
        while is_open || !forwarded.is_empty() {
            let reply = tokio::select! {
                Some(reply) = forwarded.next() => reply,
                packet = packets.next(), if is_open && forwarded.len() < MAX_PIPELINED => {
                    let Some(packet) = packet else {
                        is_open = false;
                        continue;
                    };
                    place.used();
                    match self.decide(&packet, Transport::Tcp) {
                        Action::Reply(reply) => reply,
                        Action::Ignore => return Ok(()),
                        Action::Forward(fallback) => match forwards.take(owner) {
                            Some(place) => {
                                forwarded.push(async move {
                                    self.forward(&packet, Transport::Tcp, &place, fallback).await
                                });
                                continue;
                            }
                            None => fallback.reply,
                        },
                    }
                }
                () = sleep(IDLE_TIMEOUT), if forwarded.is_empty() => return Ok(()),
            };
            timeout(IDLE_TIMEOUT, send_framed(&mut writes, &reply)).await??;
        }
        Ok(())
    }

    /// The answer of an upstream, as long as the query has its place, else the reply that there is without one.
    async fn forward(&self, query: &[u8], transport: Transport, place: &Place, fallback: Fallback) -> Vec<u8> {
        let (counts, began) = (&self.counts, Instant::now());
        counts.upstream_requests.inc();
        let reply = tokio::select! {
            reply = self.ask_once(query, transport) => reply,
            () = place.lost() => None,
            () = sleep(STALE_AFTER), if fallback.is_stale => None,
        };
        counts.upstream_seconds.observe(began.elapsed().as_secs_f64());
        match reply {
            Some(reply) if !(fallback.is_stale && is_server_failure(&reply)) => reply,
            _ => {
                counts.upstream_failures.inc();
                if fallback.is_stale {
                    counts.kept_answers.inc();
                    self.cache.failed(query, transport);
                }
                fallback.reply
            }
        }
    }

    /// The upstreams' answer, which is kept. Who asks what is being asked waits for that.
    async fn ask_once(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let Some(key) = key(query, transport) else {
            return self.upstreams.ask(query, transport).await;
        };
        let ask = async {
            let conf = self.upstreams.conf();
            let reply = self.upstreams.ask(query, transport).await?;
            self.cache.put(query, transport, &conf, &reply);
            Some(reply)
        };
        addressed(&self.in_flight.once(key, ask).await?, query)
    }

    /// The action for a query that the mesh has no answer to; `failure` is its reply when nobody else has.
    fn look_elsewhere(&self, packet: &[u8], transport: Transport, failure: Option<Vec<u8>>) -> Action {
        let Some(failure) = failure else { return Action::Ignore };
        let (reply, is_stale) = match self.cache.get(packet, transport, &self.upstreams.conf()) {
            Some(Cached::Answer(reply)) => {
                self.counts.kept_answers.inc();
                return Action::Reply(reply);
            }
            Some(Cached::Stale(reply)) => (reply, true),
            None => (failure, false),
        };
        Action::Forward(Fallback { reply, is_stale })
    }

    /// True where a client may ask on a socket: this VM's own programs on those of loopback, and its containers on those of
    /// all addresses. What the rules send there comes from no others; this holds without them, too.
    fn is_for(&self, client: SocketAddr, own: Option<SocketAddr>) -> bool {
        let client = client.ip().to_canonical();
        let has = |machine: &HostState| machine.bridges.iter().any(|bridge| bridge.has_container(client));
        own.is_some_and(|own| !own.ip().is_unspecified()) || has(&self.machine.borrow())
    }

    /// The client of a query: the user whose socket it came from, which reached us directly or, redirected, on its way to
    /// an upstream. Programs of this VM of whom the kernel doesn't tell the user are one client, whatever addresses they use.
    fn client_of(&self, protocol: Protocol, client: SocketAddr, own: Option<SocketAddr>) -> Client {
        let mut servers = self.upstreams.addresses();
        servers.extend(own);
        let unknown = own.filter(|own| own.ip().is_loopback()).unwrap_or(client);
        socket_owner(protocol, client, &servers).map_or_else(|| Client::host(unknown.ip()), Client::User)
    }

    /// The places of a client. Which socket it came to the rules decide, and no packet.
    fn room(&self, client: Client, own: Option<SocketAddr>) -> &Room {
        match client {
            Client::Host(_) if own.is_some_and(|own| own.ip().is_unspecified()) => &self.containers,
            _ => &self.users,
        }
    }

    fn decide(&self, packet: &[u8], transport: Transport) -> Action {
        let reply_or_ignore = |reply: Option<Vec<u8>>| reply.map_or(Action::Ignore, Action::Reply);
        let longest = match transport {
            Transport::Udp => MAX_UDP,
            Transport::Tcp => usize::from(u16::MAX),
        };
        if packet.len() > longest {
            return Action::Ignore;
        }
        self.counts.requests.inc();
        match message::read(packet) {
            Packet::Noise => Action::Ignore,
            Packet::Malformed(metadata) => reply_or_ignore(message::bare_failure(&metadata, ResponseCode::FormErr)),
            Packet::Unsupported(metadata) => {
                let failure = message::bare_failure(&metadata, ResponseCode::ServFail);
                self.look_elsewhere(packet, transport, failure)
            }
            Packet::Question(question) => {
                let table = Arc::clone(&self.table.borrow());
                let search = &self.upstreams.conf().search;
                let name = question.name().to_ascii_lowercase();
                match table.lookup(&name, question.query.query_type, search) {
                    Some(found) => {
                        let mut records = found.records();
                        fastrand::shuffle(&mut records);
                        reply_or_ignore(question.answer(records, transport))
                    }
                    None => self.look_elsewhere(packet, transport, question.failure(ResponseCode::ServFail)),
                }
            }
        }
    }
}

async fn send(socket: &UdpSocket, reply: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(reply, client).await {
        tracing::debug!("failed to send a DNS answer: {error}");
    }
}

#[cfg(test)]
mod tests;
