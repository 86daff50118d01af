//! The mesh's ports: bound so that only sockets of the same user can be bound beside (SO_REUSEPORT, socket(7)), and held so
//! while nobody serves on them.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
};
use sd_notify::NotifyState;
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Length of a listener's queue: tokio's own.
const BACKLOG: u32 = 1024;
/// Time that systemd is given to take descriptors.
const STORE_TIMEOUT: Duration = Duration::from_secs(10);
/// Peer that a held UDP socket is connected to (tcpmux, on loopback): the kernel gives datagrams to the unconnected
/// ones among those of a port, so it gets none (linux 5.4).
const NOBODY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
const NOBODY6: SocketAddr = SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::LOCALHOST), 1);

/// A listener that may be beside others of this user.
///
/// # Errors
/// When the port is another user's, or the address not this machine's.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }?;
    socket.set_reuseaddr(true)?;
    socket.set_reuseport(true)?;
    if address.is_ipv6() {
        // Whatever net.ipv6.bindv6only says: the unspecified address is both families'.
        setsockopt(&socket, sockopt::Ipv6V6Only, &false)?;
    }
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket for datagrams that may be beside others of this user.
///
/// # Errors
/// When the port is another user's, or the address not this machine's.
pub fn receive(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = bound(address, SockType::Datagram)?;
    let socket = std::net::UdpSocket::from(socket);
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}

/// A socket that keeps the port of a listener for this user and serves nobody.
///
/// # Errors
/// When the port is another user's, or the address not this machine's.
pub fn hold_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    bound(address, SockType::Stream)
}

/// A socket that keeps a port for datagrams for this user and receives nothing, on an address of loopback.
///
/// # Errors
/// When the port is another user's, or the address not this machine's.
pub fn hold_udp(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bound(address, SockType::Datagram)?;
    let nobody = if address.is_ipv4() { NOBODY } else { NOBODY6 };
    connect(socket.as_raw_fd(), &SockaddrStorage::from(nobody))?;
    Ok(socket)
}

/// Tells whether this machine has no such address, or none of its family.
pub fn is_absent(error: &io::Error) -> bool {
    let absent = [Errno::EADDRNOTAVAIL, Errno::EAFNOSUPPORT];
    absent.iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn bound(address: SocketAddr, kind: SockType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    if address.is_ipv6() {
        setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// Gives systemd these to keep by a name for as long as the unit is up, and waits until it has them: it knows whose they are by the
/// process that sends them (sd_notify(3), FDSTORE and BARRIER). A socket that is connected to nobody looks hung up to it,
/// hence FDPOLL.
///
/// # Errors
/// Without a systemd, and when it takes too long.
pub fn give_to_systemd(name: &str, sockets: &[OwnedFd]) -> io::Result<()> {
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    let name = NotifyState::FdName(name);
    // Those of an earlier start, which outlive a restart of the unit.
    sd_notify::notify(&[NotifyState::FdStoreRemove, name.clone()])?;
    sd_notify::notify_with_fds(&[NotifyState::FdStore, name, NotifyState::Custom("FDPOLL=0")], &sockets)?;
    let (ours, theirs) = io::pipe()?;
    sd_notify::notify_with_fds(&[NotifyState::Custom("BARRIER=1")], &[theirs.as_fd()])?;
    drop(theirs);
    let timeout = PollTimeout::try_from(STORE_TIMEOUT).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(ours.as_fd(), PollFlags::empty())], timeout)? {
        0 => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "systemd does not take the sockets",
        )),
        _ => Ok(()),
    }
}
