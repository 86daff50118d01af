//! Serves the status document on the unix socket and readiness on 15020.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::Status;
use crate::config::ports;
use crate::facts::Health;
use crate::host::Host;
use crate::supervise::Scope;

/// Makes the document of this moment.
pub(super) type Source = Arc<dyn Fn() -> Status + Send + Sync>;

/// Serves until the drain. `/status` on the socket is root's; `/healthz/ready` is anybody's, as in Istio, and
/// answers 200 or 503 with the problems, one a line.
pub async fn serve(
    scope: Scope,
    host: Host,
    socket: PathBuf,
    source: Source,
    health: watch::Receiver<Health>,
) -> Result<()> {
    let local = host.listen(&socket, None)?;
    let readiness = listen_everywhere(ports::STATUS).await.with_context(|| {
        format!(
            "failed to listen on port {0}: find who has it with `ss -ltnp sport = :{0}`",
            ports::STATUS
        )
    })?;
    let status = Router::new().route("/status", get(async move || Json(source())));
    let ready = Router::new().route("/healthz/ready", get(ready)).with_state(health);
    scope.ready();
    tokio::select! {
        biased;
        () = scope.draining() => {}
        ended = axum::serve(local, status) => ended.context("the status socket ended")?,
        ended = axum::serve(readiness, ready) => ended.context("the readiness port ended")?,
    }
    host.remove(&socket)?;
    Ok(())
}

async fn ready(State(health): State<watch::Receiver<Health>>) -> (StatusCode, String) {
    let health = health.borrow();
    let code = if health.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, health.problems.join("\n"))
}

/// Both families where there are two.
async fn listen_everywhere(port: u16) -> io::Result<TcpListener> {
    match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))).await {
        Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).await
        }
        bound => bound,
    }
}
