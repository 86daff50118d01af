//! Serves the status document on the unix socket, and readiness and the parts' pages on 15020.

use std::convert::Infallible;
use std::fmt;
use std::future::ready;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::{BoxFuture, FutureExt};
use http::request::Parts;
use http::{Method, StatusCode};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout_at};

use super::Status;
use super::http::exchange;
use crate::bounds::{Client, Refusals, Shares};
use crate::config::ports;
use crate::facts::Health;
use crate::host::ports::listen;
use crate::host::{Host, Protocol, socket_owner};
use crate::part::{Answer, Audience, Channels, Page, text, typed};
use crate::supervise::Scope;

/// Connections from the network at a time: at some thousand a second a request has tens of milliseconds to arrive in.
const FROM_NETWORK: usize = 256;
/// Connections of this VM's own at a time, Envoy's forward from 15021 among them. They are apart from the network's,
/// so that nothing out there comes between the agent and Envoy.
const FROM_HERE: usize = 16;
/// Connections to the unix socket at a time, all of them root's.
const TO_SOCKET: usize = 16;
/// Bytes that the kernel keeps of a connection that isn't read yet: a request has some hundred.
const RECEIVE_BUFFER: usize = 16 << 10;
/// Rest after a socket error, which out of memory or out of files gives without end.
const ERROR_PAUSE: Duration = Duration::from_millis(100);

/// Makes the document of this moment.
pub(super) type Source = Arc<dyn Fn() -> Status + Send + Sync>;

/// State of port 15020.
#[derive(Clone)]
pub struct StatusPort {
    /// The verdict.
    pub health: watch::Receiver<Health>,
    /// The pages of the parts.
    pub pages: Arc<[Page]>,
    /// The facts that the pages are made of, once it is known who this VM is.
    pub channels: Arc<OnceLock<Channels>>,
    /// The agent that was here before served until a moment ago: until then nobody is told that this one does not yet.
    pub patient_until: Option<Instant>,
}

impl fmt::Debug for StatusPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StatusPort")
            .field("pages", &self.pages)
            .finish_non_exhaustive()
    }
}

/// Serves until the drain. `/status` on the socket is root's; `/healthz/ready` is anybody's, as in Istio, and answers
/// 200 `ready` or 503 `not ready`: why is root's to know. Envoy asks on behalf of the network, so nobody is told more. A
/// part's page says whose it is.
pub async fn serve(
    scope: Scope,
    host: Host,
    socket: PathBuf,
    source: Source,
    told: StatusPort,
    refusals: Refusals,
) -> Result<()> {
    let local = host.listen(&socket, None)?;
    let pages = listen_everywhere(ports::STATUS).with_context(|| {
        format!(
            "failed to listen on port {0}: find who has it with `ss -ltnp sport = :{0}`",
            ports::STATUS
        )
    })?;
    scope.spawn_loop(serve_status(scope.clone(), local, source, refusals.clone()));
    scope.spawn_loop(serve_pages(scope.clone(), pages, told, PortShares::new(&refusals)));
    scope.ready();
    scope.draining().await;
    host.remove(&socket)?;
    Ok(())
}

/// The unix socket. A document is made for each who asks, and root asks.
async fn serve_status(scope: Scope, listener: UnixListener, source: Source, refusals: Refusals) -> Infallible {
    let shares = Shares::new("connections to the status socket", TO_SOCKET, Duration::ZERO, refusals);
    loop {
        let Some(stream) = accepted(listener.accept().await.map(|(stream, _)| stream)).await else {
            continue;
        };
        let uid = stream.peer_cred().map_or(0, |peer| peer.uid());
        let source = Arc::clone(&source);
        let answer = move |request: Parts| {
            ready(match request.uri.path() {
                "/status" => refusal(&request, &Method::GET).unwrap_or_else(|| document(&source())),
                _ => not_found(),
            })
        };
        if let Some(place) = shares.take(Client::User(uid)) {
            scope.spawn(exchange(stream, place, answer));
        }
    }
}

fn document(status: &Status) -> Answer {
    match serde_json::to_vec(status) {
        Ok(document) => typed(StatusCode::OK, "application/json", document),
        Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Limits of the port, by where a connection comes from.
#[derive(Debug)]
struct PortShares {
    network: Shares,
    here: Shares,
    /// Tells the client of a connection, by which it is counted.
    whose: fn(&TcpStream) -> Option<Client>,
}

impl PortShares {
    fn new(refusals: &Refusals) -> Self {
        let door = |what, places| Shares::new(what, places, Duration::ZERO, refusals.clone());
        Self {
            network: door("15020 connections", FROM_NETWORK),
            here: door("15020 connections of this VM", FROM_HERE),
            whose,
        }
    }

    fn of(&self, client: Client) -> &Shares {
        match client {
            Client::User(_) => &self.here,
            Client::Host(ip) if ip.is_loopback() => &self.here,
            Client::Host(_) => &self.network,
        }
    }
}

async fn serve_pages(scope: Scope, listener: TcpListener, told: StatusPort, doors: PortShares) -> Infallible {
    loop {
        let Some(stream) = accepted(listener.accept().await.map(|(stream, _)| stream)).await else {
            continue;
        };
        // One that has gone already is nobody's.
        let Some(client) = (doors.whose)(&stream) else { continue };
        let told = told.clone();
        let asked = scope.clone();
        let answer = move |request: Parts| told.answer(asked.clone(), client, request);
        if let Some(place) = doors.of(client).take(client) {
            scope.spawn(exchange(stream, place, answer));
        }
    }
}

/// A user of this VM, or the host of the network that it comes from.
fn whose(stream: &TcpStream) -> Option<Client> {
    let (peer, local) = (stream.peer_addr().ok()?, stream.local_addr().ok()?);
    let ip = peer.ip().to_canonical();
    let is_here = ip.is_loopback() || ip == local.ip().to_canonical();
    let owner = is_here.then(|| socket_owner(Protocol::Tcp, peer, &[local])).flatten();
    Some(owner.map_or_else(|| Client::host(ip), Client::User))
}

impl StatusPort {
    fn answer(&self, scope: Scope, client: Client, request: Parts) -> BoxFuture<'static, Answer> {
        let path = request.uri.path();
        let at_once = |answer| ready(answer).boxed();
        if path == "/healthz/ready" {
            return match refusal(&request, &Method::GET) {
                Some(refused) => at_once(refused),
                None => self.clone().readiness().boxed(),
            };
        }
        let Some(page) = self.pages.iter().find(|page| page.is_at(path)) else {
            return at_once(not_found());
        };
        let Some(channels) = self.channels.get() else {
            return at_once(text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not known yet: this VM has not joined",
            ));
        };
        let refused = forbidden((page.audience)(channels), client).or_else(|| refusal(&request, &page.method));
        match refused {
            Some(refused) => at_once(refused),
            None => page.answer(scope, channels.clone(), request),
        }
    }

    async fn readiness(mut self) -> Answer {
        if let Some(until) = self.patient_until {
            let ready = self.health.wait_for(|health| health.ready).map(drop);
            // What is so in the end is told below.
            let _ = timeout_at(until, ready).await;
        }
        match self.health.borrow().ready {
            true => text(StatusCode::OK, "ready"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        }
    }
}

/// The answer to whoever is not to see a page. A user of this VM is known by the kernel's word of its socket.
fn forbidden(audience: Audience, client: Client) -> Option<Answer> {
    let is_here = match client {
        Client::User(_) => true,
        Client::Host(ip) => ip.is_loopback(),
    };
    let words = match audience {
        Audience::ThisHost if !is_here => "only from this VM",
        Audience::Root if client != Client::User(0) => "only for root of this VM",
        _ => return None,
    };
    Some(text(StatusCode::FORBIDDEN, words))
}

fn not_found() -> Answer {
    text(StatusCode::NOT_FOUND, "not found")
}

/// The answer to a request by another method than the page's.
fn refusal(request: &Parts, method: &Method) -> Option<Answer> {
    let is_read = *method == Method::GET;
    let is_right = request.method == *method || is_read && request.method == Method::HEAD;
    let words = if is_read { "only GET and HEAD" } else { "only POST" };
    (!is_right).then(|| text(StatusCode::METHOD_NOT_ALLOWED, words))
}

async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!("failed to accept a connection for the status: {error}");
            sleep(ERROR_PAUSE).await;
            None
        }
    }
}

/// Both families where there are two.
fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    let listener = match listen(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        bound => bound,
    }?;
    // What it accepts has the same.
    setsockopt(&listener, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
