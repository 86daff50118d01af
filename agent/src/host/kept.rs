//! Sockets that outlive the agent: systemd keeps a copy of each and gives it to the next agent (FDSTORE, sd_notify(3)).
//! What comes in meanwhile waits in them, and nobody is refused.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use listenfd::ListenFd;
use sd_notify::NotifyState;

/// What systemd kept for this process; empty without a systemd.
#[derive(Debug, Default)]
pub struct KeptSockets {
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
}

impl KeptSockets {
    /// What this process was started with ($LISTEN_FDS). To be called once, before there are other threads: it takes
    /// the variables out of the environment.
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

    /// Gives systemd copies of these to keep, which it lets go when the unit is stopped. Without systemd nothing
    /// happens.
    pub fn keep(sockets: &[impl AsFd]) -> io::Result<()> {
        let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
        sd_notify::notify_with_fds(&[NotifyState::FdStore], &sockets)
    }
}

impl From<Vec<(UdpSocket, TcpListener)>> for KeptSockets {
    fn from(pairs: Vec<(UdpSocket, TcpListener)>) -> Self {
        let (udp, tcp) = pairs.into_iter().unzip();
        Self { udp, tcp }
    }
}
