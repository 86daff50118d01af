//! Word of changes to the kernel's tables, whoever makes them: the packet filter, and the network.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use super::Host;

/// The multicast group of nf_tables, as a bit (linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES is 7).
const NFTABLES: u32 = 1 << 6;
/// The multicast groups of interfaces, addresses and routes, as bits (linux/rtnetlink.h): RTMGRP_LINK,
/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE.
const NETWORK: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// Changes come in bursts; the first is told at once, the next no sooner than this after it.
const QUIET: Duration = Duration::from_millis(250);

/// Tables of the kernel that tell of their changes by netlink.
#[derive(Clone, Copy, Debug)]
pub enum Watched {
    /// nf_tables, and so iptables over nftables too. Changes of iptables-legacy are told to nobody.
    PacketFilter,
    /// Interfaces, their addresses, and routes.
    Network,
}

/// A subscription to the changes of one kind of tables.
#[derive(Debug)]
pub struct KernelChanges {
    watched: Watched,
    socket: Option<AsyncFd<OwnedFd>>,
    not_before: Instant,
}

impl Host {
    /// Subscribes; where the kernel has no such tables, no change is ever told.
    #[expect(
        deprecated,
        reason = "deprecated for types that may change their fd; its successor is `unsafe`, and OwnedFd can't"
    )]
    pub fn kernel_changes(&self, watched: Watched) -> KernelChanges {
        let socket = self
            .runner
            .kernel_changes(watched)
            .and_then(|socket| AsyncFd::with_interest(socket, Interest::READABLE));
        KernelChanges {
            watched,
            socket: socket
                .inspect_err(|error| tracing::debug!("changes of {watched:?} are not told: {error}"))
                .ok(),
            not_before: Instant::now(),
        }
    }
}

impl KernelChanges {
    /// Waits for the next change.
    pub async fn next(&mut self) {
        let Some(socket) = &self.socket else {
            return std::future::pending().await;
        };
        sleep_until(self.not_before).await;
        match socket.readable().await {
            Ok(mut ready) => {
                drain(socket.get_ref());
                ready.clear_ready();
            }
            Err(error) => {
                tracing::warn!("changes of {:?} are told no more: {error}", self.watched);
                self.socket = None;
            }
        }
        self.not_before = Instant::now() + QUIET;
    }
}

pub(super) fn subscribe(watched: Watched) -> io::Result<OwnedFd> {
    let (protocol, groups) = match watched {
        Watched::PacketFilter => (SockProtocol::NetlinkNetFilter, NFTABLES),
        Watched::Network => (SockProtocol::NetlinkRoute, NETWORK),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol)?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
    Ok(socket)
}

/// Drops the messages: what they are about is looked up, and that something changed is enough. A full buffer (ENOBUFS)
/// says the same.
fn drain(socket: &OwnedFd) {
    let mut message = [0; 8192];
    loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}
