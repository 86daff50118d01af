//! Unix sockets that serve only whom they are meant for.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};

use super::Host;

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

/// Connections whose other end runs as root or as one of `users` (SO_PEERCRED); others are closed and logged.
pub fn connections_of(users: Vec<u32>, listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    UnixListenerStream::new(listener).filter(move |connection| {
        let Ok(stream) = connection else { return true };
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
    })
}
