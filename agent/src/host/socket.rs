//! Unix sockets that serve only whom they are meant for.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};
use tonic::transport::server::{Connected, UdsConnectInfo};

use super::Host;
use crate::bounds::Refusals;

impl Host {
    /// Binds a socket for the caller's user alone, or for `group` too, over a dead one of the same name.
    pub fn listen(&self, path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
        let at = self.at(path);
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("failed to listen on {}: {error}", path.display()));
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(&at).map_err(failed)?,
            Ok(_) => return Err(failed(io::Error::other("it is there and is no socket"))),
            Err(_) => {}
        }
        let listener = UnixListener::bind(&at).map_err(failed)?;
        // In its unit the agent is in the one group that it ever names here, and may give nothing to another.
        if group.is_some() && group != Some(std::fs::metadata(&at).map_err(failed)?.gid()) {
            chown(&at, None, group).map_err(failed)?;
        }
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode)).map_err(failed)?;
        Ok(listener)
    }
}

/// Who is served on a local socket.
#[derive(Clone, Debug)]
pub struct Audience {
    /// Besides root.
    pub users: Vec<u32>,
    /// At once.
    pub most: usize,
    /// Counts who is not served for being one too many.
    pub refusals: Refusals,
}

/// A connection, one of a bounded number.
#[derive(Debug)]
pub struct Served {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

/// Connections whose other end runs as root or as one of the audience's users (SO_PEERCRED); others are closed and logged,
/// and so are those beyond its number.
pub fn connections_of(audience: Audience, listener: UnixListener) -> impl Stream<Item = io::Result<Served>> {
    let Audience { users, most, refusals } = audience;
    let places = Arc::new(Semaphore::new(most));
    UnixListenerStream::new(listener).filter_map(move |connection| {
        let stream = match connection {
            Ok(stream) if is_of(&users, &stream) => stream,
            Ok(_) => return None,
            Err(error) => return Some(Err(error)),
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            refusals.count("connections to Envoy's sockets", "");
            return None;
        };
        Some(Ok(Served { stream, _place: place }))
    })
}

impl Served {
    /// The connection itself, for what is more than bytes.
    pub fn stream(&self) -> &UnixStream {
        &self.stream
    }
}

fn is_of(users: &[u32], stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if peer.uid() == 0 || users.contains(&peer.uid()) => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                pid = peer.pid(),
                "refused a connection to a local socket"
            );
            false
        }
        Err(error) => {
            tracing::warn!("refused a connection to a local socket: failed to tell its user: {error}");
            false
        }
    }
}

impl Connected for Served {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for Served {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Served {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
