//! Word of changes to the kernel's packet filter, whoever makes them.

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

/// Changes come in bursts; the first is told at once, the next no sooner than this after it.
const QUIET: Duration = Duration::from_millis(250);

/// A subscription to changes of nf_tables, those by iptables over nftables among them. Those of iptables-legacy are told
/// to nobody.
#[derive(Debug)]
pub struct FilterChanges {
    socket: Option<AsyncFd<OwnedFd>>,
    not_before: Instant,
}

impl Host {
    /// Subscribes; where the kernel has no nf_tables, no change is ever told.
    #[expect(
        deprecated,
        reason = "deprecated for types that may change their fd; its successor is `unsafe`, and OwnedFd can't"
    )]
    pub fn filter_changes(&self) -> FilterChanges {
        let socket = self
            .runner
            .filter_changes()
            .and_then(|socket| AsyncFd::with_interest(socket, Interest::READABLE));
        FilterChanges {
            socket: socket
                .inspect_err(|error| tracing::debug!("changes of the packet filter are not told: {error}"))
                .ok(),
            not_before: Instant::now(),
        }
    }
}

impl FilterChanges {
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
                tracing::warn!("changes of the packet filter are told no more: {error}");
                self.socket = None;
            }
        }
        self.not_before = Instant::now() + QUIET;
    }
}

pub(super) fn subscribe() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        flags,
        SockProtocol::NetlinkNetFilter,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, NFTABLES))?;
    Ok(socket)
}

/// Drops the messages: the rules are looked up, and that something changed is enough. A full buffer (ENOBUFS) says
/// the same.
fn drain(socket: &OwnedFd) {
    let mut message = [0; 8192];
    loop {
        match recv(socket.as_raw_fd(), &mut message, MsgFlags::MSG_DONTWAIT) {
            Ok(_) | Err(Errno::ENOBUFS) => {}
            Err(_) => return,
        }
    }
}
