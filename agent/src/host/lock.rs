//! One agent per run directory, and one per network namespace: the rules and the ports are the namespace's.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, getsockopt, sockopt};
use nix::unistd::Uid;

use super::Host;
use super::socket_owner::name_owner;

/// Held for as long as it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

/// Held for as long as it lives, in one network namespace; empty where another user squats on its name.
#[derive(Debug)]
pub struct NetworkLock(#[expect(dead_code, reason = "closing it is what unlocks")] Option<UnixListener>);

/// Name of the abstract socket (unix(7)) that is the lock of a network namespace; the root of the host follows.
const NETWORK_LOCK: &[u8] = b"istio-vm-agent:";
/// Tries to have a name that is in use and nobody's in turn. An agent lets go of it once, when it ends.
const TRIES: usize = 3;

impl Host {
    /// Takes the lock of this network namespace, whatever directories an agent has, or says which process has it. The
    /// name is anybody's to take, so it counts when this process's user has it, and keeps nobody else from anything.
    /// Whose it is the kernel says: whoever has the name decides whether, and when, a connection to it is made.
    ///
    /// # Errors
    /// When another process of this user has it.
    pub fn lock_network(&self) -> io::Result<NetworkLock> {
        let name = self.lock_name();
        for _ in 0..TRIES {
            match UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name)?) {
                Ok(listener) => return Ok(NetworkLock(Some(listener))),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error),
            }
            match name_owner(&name)? {
                None => {}
                Some(user) if user == Uid::effective().as_raw() => return Err(held(&name)),
                Some(user) => {
                    tracing::warn!("user {user} has the name of the agent's lock: a second agent is not kept out");
                    return Ok(NetworkLock(None));
                }
            }
        }
        tracing::warn!("the name of the agent's lock changes hands all the time: a second agent is not kept out");
        Ok(NetworkLock(None))
    }

    /// The process of this user that has the lock of this network namespace.
    pub fn network_holder(&self) -> Option<u32> {
        let name = self.lock_name();
        let owner = name_owner(&name).ok()??;
        let holder = (owner == Uid::effective().as_raw()).then(|| pid_of(&name).ok())??;
        u32::try_from(holder).ok()
    }

    fn lock_name(&self) -> Vec<u8> {
        [NETWORK_LOCK, self.at(Path::new("/")).as_os_str().as_bytes()].concat()
    }

    /// Takes the lock file `path`, or says which process has it.
    ///
    /// # Errors
    /// When another process has it (`WouldBlock`), or it can't be written.
    pub fn lock(&self, path: &Path) -> io::Result<Lock> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.at(path))
            .map_err(named)?;
        if file.try_lock().is_err() {
            let holder = io::read_to_string(&file).unwrap_or_default();
            let problem = format!("{}: held by the agent with pid {}", path.display(), holder.trim());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(named)?;
        Ok(Lock(file))
    }
}

fn held(name: &[u8]) -> io::Error {
    let pid = pid_of(name).map_or_else(|_| String::new(), |pid| format!(", with pid {pid}"));
    io::Error::new(io::ErrorKind::WouldBlock, format!("an agent runs on this host{pid}"))
}

/// The process that listens by this name (unix(7), SO_PEERCRED). Fails at once where its queue is full.
fn pid_of(name: &[u8]) -> nix::Result<i32> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let caller = socket::socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    socket::connect(caller.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    Ok(getsockopt(&caller, sockopt::PeerCredentials)?.pid())
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use nix::sys::socket::Backlog;
    use nix::unistd::fchown;

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

    /// Has the name, and answers nobody: it doesn't listen, or its queue is full.
    fn squat(name: &[u8], is_listening: bool) -> Vec<OwnedFd> {
        let open = || socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        let address = UnixAddr::new_abstract(name).unwrap();
        let mut sockets = vec![open()];
        socket::bind(sockets[0].as_raw_fd(), &address).unwrap();
        if is_listening {
            socket::listen(&sockets[0], Backlog::new(0).unwrap()).unwrap();
            sockets.push(open());
            socket::connect(sockets[1].as_raw_fd(), &address).unwrap();
        }
        sockets
    }

    #[test]
    fn name_of_the_lock_is_judged_by_its_owner_whatever_answers_there() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let name = host.lock_name();
        for is_listening in [false, true] {
            let squatter = squat(&name, is_listening);
            let error = host.lock_network().unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(error.to_string(), "an agent runs on this host");
            if Uid::effective().is_root() {
                // A socket is of who made it, and may be given away.
                fchown(&squatter[0], Some(Uid::from_raw(65534)), None).unwrap();
                host.lock_network().unwrap();
            }
        }
        assert_eq!(name_owner(&name).unwrap(), None);
    }

    #[test]
    fn second_holder_is_told_who_the_first_is() {
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
