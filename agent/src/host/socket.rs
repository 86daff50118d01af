//! Unix sockets that serve only whom they are meant for.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};
use tokio_stream::{Stream, StreamExt, wrappers::UnixListenerStream};

use super::{Host, Owner};

impl Host {
    /// Binds a socket of mode 0600 for `owner` (the caller's when absent), over a dead one of the same name.
    pub fn listen(&self, path: &Path, owner: Option<Owner>) -> io::Result<UnixListener> {
        let at = self.at(path);
        let failed =
            |error: io::Error| io::Error::new(error.kind(), format!("failed to listen on {}: {error}", path.display()));
        match std::fs::symlink_metadata(&at) {
            Ok(meta) if meta.file_type().is_socket() => std::fs::remove_file(&at).map_err(failed)?,
            Ok(_) => return Err(failed(io::Error::other("it is there and is no socket"))),
            Err(_) => {}
        }
        let listener = UnixListener::bind(&at).map_err(failed)?;
        if let Some(Owner { uid, gid }) = owner {
            chown(&at, Some(uid), Some(gid)).map_err(failed)?;
        }
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
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
