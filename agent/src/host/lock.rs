//! One agent per run directory, and one per network namespace: the rules and the ports are the namespace's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::Uid;

use super::Host;

/// Held for as long as it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

/// Held for as long as it lives, in one network namespace; empty where another user squats on its name.
#[derive(Debug)]
pub struct NetworkLock(#[expect(dead_code, reason = "closing it is what unlocks")] Option<UnixListener>);

/// Name of the abstract socket (unix(7)) that is the lock of a network namespace; the root of the host follows.
const NETWORK_LOCK: &[u8] = b"istio-vm-agent:";

impl Host {
    /// Takes the lock of this network namespace, whatever directories an agent has, or says which process has it. The
    /// name is anybody's to take, so it counts when this process's user has it, and keeps nobody else from anything.
    ///
    /// # Errors
    /// When another process of this user has it.
    pub fn lock_network(&self) -> io::Result<NetworkLock> {
        let name = [NETWORK_LOCK, self.at(Path::new("/")).as_os_str().as_bytes()].concat();
        let address = SocketAddr::from_abstract_name(name)?;
        match UnixListener::bind_addr(&address) {
            Ok(listener) => Ok(NetworkLock(Some(listener))),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => not_ours(&address),
            Err(error) => Err(error),
        }
    }

    /// Takes the lock file `path`, or says which process has it.
    pub fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.at(path))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if file.try_lock().is_err() {
            let holder = io::read_to_string(&file).unwrap_or_default();
            let problem = format!("{}: held by the agent with pid {}", path.display(), holder.trim());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock(file))
    }
}

/// Fails when the one who has the lock is of this user.
fn not_ours(address: &SocketAddr) -> io::Result<NetworkLock> {
    // The credentials of whoever listens (unix(7), SO_PEERCRED).
    let holder = getsockopt(&UnixStream::connect_addr(address)?, sockopt::PeerCredentials)?;
    if holder.uid() != Uid::effective().as_raw() {
        tracing::warn!(
            "user {} (pid {}) has the name of the agent's lock: a second agent is not kept out",
            holder.uid(),
            holder.pid()
        );
        return Ok(NetworkLock(None));
    }
    let problem = format!("an agent runs on this host, with pid {}", holder.pid());
    Err(io::Error::new(io::ErrorKind::WouldBlock, problem))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    #[test]
    fn network_lock_is_held_whatever_the_directories_and_let_go() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let first = host.lock_network().unwrap();
        let error = host.lock_network().unwrap_err().to_string();
        let expected = format!("an agent runs on this host, with pid {}", std::process::id());
        assert_eq!(error, expected);
        drop(first);
        host.lock_network().unwrap();
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let first = host.lock(Path::new("/lock")).unwrap();
        let error = host.lock(Path::new("/lock")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("/lock: held by the agent with pid {}", std::process::id())
        );
        drop(first);
        host.lock(Path::new("/lock")).unwrap();
    }
}
