//! Serves the status document on the unix socket and readiness on 15020.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::time::sleep;

use super::Status;
use super::http::{self as one, Answer};
use crate::bounds::{Client, Refusals, Shares};
use crate::config::ports;
use crate::facts::Health;
use crate::host::ports::listen;
use crate::host::{Host, Protocol, socket_owner};
use crate::supervise::Scope;

/// Connections from the network at a time.
const FROM_NETWORK: usize = 64;
/// Connections of this VM's own at a time, Envoy's forward from 15021 among them. They are apart from the network's,
/// so that nothing out there comes between the agent and Envoy.
const FROM_HERE: usize = 16;
/// Connections to the unix socket at a time, all of them root's.
const TO_SOCKET: usize = 16;
/// Bytes that the kernel keeps of a connection that isn't read yet: a request has some hundred.
const RECEIVE_BUFFER: usize = 16 << 10;
/// Rest after a socket error, which out of memory or out of files gives without end.
const REST: Duration = Duration::from_millis(100);

/// Makes the document of this moment.
pub(super) type Source = Arc<dyn Fn() -> Status + Send + Sync>;

/// Serves until the drain. `/status` on the socket is root's; `/healthz/ready` is anybody's, as in Istio, and answers
/// 200 `ready` or 503 `not ready`: why is root's to know. Envoy asks on behalf of the network, so nobody is told more.
pub async fn serve(
    scope: Scope,
    host: Host,
    socket: PathBuf,
    source: Source,
    health: watch::Receiver<Health>,
    refusals: Refusals,
) -> Result<()> {
    let local = host.listen(&socket, None)?;
    let readiness = listen_everywhere(ports::STATUS).with_context(|| {
        format!(
            "failed to listen on port {0}: find who has it with `ss -ltnp sport = :{0}`",
            ports::STATUS
        )
    })?;
    scope.spawn_loop(serve_status(scope.clone(), local, source, refusals.clone()));
    scope.spawn_loop(serve_readiness(scope.clone(), readiness, health, Doors::new(&refusals)));
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
        let answer = move |request: &Request<Incoming>| match refusal(request, "/status") {
            Some(refusal) => refusal,
            None => serde_json::to_string(&source()).map_or_else(
                |error| one::text(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
                one::json,
            ),
        };
        if let Some(place) = shares.take(Client::User(uid)) {
            scope.spawn(one::exchange(stream, place, answer));
        }
    }
}

/// Limits of the readiness port, by where a connection comes from.
#[derive(Debug)]
struct Doors {
    network: Shares,
    here: Shares,
    /// Whose a connection is, and which door is the one for it.
    whose: fn(&TcpStream) -> Option<Client>,
}

impl Doors {
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

async fn serve_readiness(
    scope: Scope,
    listener: TcpListener,
    health: watch::Receiver<Health>,
    doors: Doors,
) -> Infallible {
    loop {
        let Some(stream) = accepted(listener.accept().await.map(|(stream, _)| stream)).await else {
            continue;
        };
        // One that has gone already is nobody's.
        let Some(client) = (doors.whose)(&stream) else { continue };
        let health = health.clone();
        let answer = move |request: &Request<Incoming>| match refusal(request, "/healthz/ready") {
            Some(refusal) => refusal,
            None if health.borrow().ready => one::text(StatusCode::OK, "ready"),
            None => one::text(StatusCode::SERVICE_UNAVAILABLE, "not ready"),
        };
        if let Some(place) = doors.of(client).take(client) {
            scope.spawn(one::exchange(stream, place, answer));
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

/// The answer to a request for anything but `path`.
fn refusal(request: &Request<Incoming>, path: &str) -> Option<Response<Answer>> {
    if request.uri().path() != path {
        return Some(one::text(StatusCode::NOT_FOUND, "not found"));
    }
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    (!is_read).then(|| one::text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD"))
}

async fn accepted<T>(accepted: io::Result<T>) -> Option<T> {
    match accepted {
        Ok(stream) => Some(stream),
        Err(error) => {
            tracing::warn!("failed to accept a connection for the status: {error}");
            sleep(REST).await;
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
