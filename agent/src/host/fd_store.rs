//! Sockets that outlive the agent: systemd keeps a copy of each and gives it to the next agent (FDSTORE, sd_notify(3)).
//! Whatever comes in meanwhile waits in them, and nobody is refused.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use listenfd::ListenFd;
use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};
use sd_notify::NotifyState;

/// Where the sockets lie that a process hands to itself: far from those that are opened by and by.
const FIRST: RawFd = 512;

/// Sockets that systemd kept for this process; none without a systemd.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    store: FdStore,
}

/// Copies of the sockets in use, for the program that this process may become. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct FdStore(Arc<Mutex<Vec<OwnedFd>>>);

impl InheritedSockets {
    /// Takes the sockets that this process was started with ($LISTEN_FDS). To be called once, before there are other
    /// threads: it takes the variables out of the environment.
    pub fn from_environment() -> Self {
        let mut given = ListenFd::from_env();
        let mut kept = Self::default();
        for index in 0..given.len() {
            if let Ok(Some(socket)) = given.take_udp_socket(index) {
                kept.udp.push(socket);
            } else if let Ok(Some(listener)) = given.take_tcp_listener(index) {
                kept.tcp.push(listener);
            }
        }
        kept
    }

    /// Both sockets of this address, if systemd kept both.
    pub fn take(&mut self, address: SocketAddr) -> Option<(UdpSocket, TcpListener)> {
        let udp = self.udp.iter().position(|it| it.local_addr().ok() == Some(address))?;
        let tcp = self.tcp.iter().position(|it| it.local_addr().ok() == Some(address))?;
        Some((self.udp.swap_remove(udp), self.tcp.swap_remove(tcp)))
    }

    /// The copies that the next program of this process is handed.
    pub fn store(&self) -> FdStore {
        self.store.clone()
    }

    /// Has systemd let go of all of them, by the name that it gives those without one (sd_notify(3), FDNAME): queries would
    /// go to sockets that nobody reads.
    pub fn release(self) -> io::Result<()> {
        if self.udp.is_empty() && self.tcp.is_empty() {
            return Ok(());
        }
        sd_notify::notify(&[NotifyState::FdStoreRemove, NotifyState::FdName("stored")])
    }

    /// Gives systemd copies of these to keep, which it lets go when the unit is stopped, and takes some itself.
    pub fn keep(&self, sockets: &[impl AsFd]) -> io::Result<()> {
        let copies: io::Result<Vec<OwnedFd>> = sockets.iter().map(|it| it.as_fd().try_clone_to_owned()).collect();
        self.store.lock().extend(copies?);
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        sd_notify::notify_with_fds(&[NotifyState::FdStore], &sockets)
    }
}

impl FdStore {
    /// Has the next program of this process find them, as if systemd gave them: the variables of its environment.
    pub fn hand_on(&self) -> io::Result<[(&'static str, String); 3]> {
        let copies = self.lock();
        for (copy, wanted) in copies.iter().zip(FIRST..) {
            let fd = fcntl_dupfd_cloexec(copy, wanted)?;
            if fd.as_raw_fd() != wanted {
                return Err(io::Error::other(format!("descriptor {wanted} is taken")));
            }
            fcntl_setfd(&fd, FdFlags::empty())?;
            // Open until the next program takes it.
            let _ = fd.into_raw_fd();
        }
        Ok([
            ("LISTEN_FDS", copies.len().to_string()),
            ("LISTEN_FDS_FIRST_FD", FIRST.to_string()),
            ("LISTEN_PID", std::process::id().to_string()),
        ])
    }

    /// Lets go of the ports.
    pub fn forget(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<Vec<(UdpSocket, TcpListener)>> for InheritedSockets {
    fn from(pairs: Vec<(UdpSocket, TcpListener)>) -> Self {
        let (udp, tcp) = pairs.into_iter().unzip();
        Self {
            udp,
            tcp,
            store: FdStore::default(),
        }
    }
}
