//! The agent's side: copies of its sockets for the standby.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use tokio::net::UnixListener;
use tokio::sync::watch;
use tokio::time::sleep;
use tokio_stream::StreamExt;

use crate::bounds::Refusals;
use crate::dns::server::ERROR_PAUSE;
use crate::facts::Membership;
use crate::host::{Audience, connections_of, send_descriptors};

/// Standbys at a time: one that dies and the next.
const MOST: usize = 2;

/// Where the sockets are lent.
#[derive(Clone, Debug)]
pub struct Lender {
    /// Socket of root's alone.
    pub socket: PathBuf,
    /// The standby's unit; none without a systemd, and then nobody borrows.
    pub unit: Option<String>,
}

/// Lends copies of the sockets to whoever of root's connects. A connection stays open until one side ends.
pub(in crate::dns) async fn lend(
    listener: UnixListener,
    sockets: Vec<OwnedFd>,
    membership: watch::Receiver<Arc<Membership>>,
    refusals: Refusals,
) {
    let audience = Audience {
        users: Vec::new(),
        most: MOST,
        refusals,
    };
    let mut connections = std::pin::pin!(connections_of(audience, listener));
    // Held open: its end tells the standby that this agent is gone.
    let mut current = None;
    while let Some(connection) = connections.next().await {
        let Ok(connection) = connection else {
            // Out of files or memory, which goes on without end.
            sleep(ERROR_PAUSE).await;
            continue;
        };
        let namespace = membership.borrow().spiffe_id.namespace.clone();
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        match send_descriptors(connection.stream(), namespace.as_bytes(), &descriptors).await {
            Ok(()) => current = Some(connection),
            Err(error) => tracing::warn!("failed to lend the DNS sockets to the standby: {error}"),
        }
    }
    drop(current);
}
