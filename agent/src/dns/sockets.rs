//! The sockets on which queries come in: bound, taken over from an earlier agent, or lent.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{SockType, getsockopt, setsockopt, sockopt};
use tokio::net::{TcpListener, UdpSocket};

use crate::host::ports::{is_absent, listen, receive};
use crate::host::{Host, InheritedSockets, Protocol};

/// Sockets on which queries come in.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) udp: Vec<UdpSocket>,
    pub(super) tcp: Vec<TcpListener>,
    /// Addresses for containers that somebody else has, each with the error.
    pub(super) taken: Vec<String>,
    /// True when they were an earlier agent's: queries may wait in them, and others never stopped coming.
    pub(super) kept: bool,
}

impl Sockets {
    /// Takes over what an earlier agent had on these addresses, or binds UDP and TCP; and has systemd keep them for
    /// the next one. An address of a family that the machine has not is passed over, as long as one is left; and so is,
    /// for containers alone, every address of this machine while somebody has one of them: the VM itself goes first.
    pub(super) async fn bind(addresses: &[SocketAddr], mut kept: InheritedSockets) -> Result<Self> {
        let mut sockets = Self::default();
        for address in addresses {
            let earlier = kept.take(*address);
            sockets.kept |= earlier.is_some();
            let bound = match earlier {
                Some(both) => take_over(both),
                None => bind_both(*address),
            };
            match bound {
                Ok((udp, tcp)) => {
                    sockets.udp.push(udp);
                    sockets.tcp.push(tcp);
                }
                Err(error) if is_absent(&error) => tracing::info!("no DNS on {address}: {error}"),
                Err(error) if address.ip().is_unspecified() => sockets.taken.push(format!("{address}: {error}")),
                Err(error) => {
                    return Err(error).with_context(|| {
                        format!("failed to listen for DNS on {address}: stop what holds the port (`ss -lnp`)")
                    });
                }
            }
        }
        if sockets.udp.is_empty() {
            bail!("failed to listen for DNS: the machine has none of {addresses:?}");
        }
        if let Err(error) = kept.keep(&sockets.udp).and_then(|()| kept.keep(&sockets.tcp)) {
            tracing::warn!("failed to have systemd keep the DNS sockets, so a restart refuses queries: {error}");
        }
        Ok(sockets)
    }

    /// The problem of addresses for containers that somebody else has; `None`: nobody has. A datagram is for the socket
    /// of its very address, beside which the kernel lets one of all addresses be bound.
    pub(super) async fn taken(&self, host: &Host) -> Option<String> {
        let own = self.addresses();
        let listening = host.blocking(|host| Ok(host.listening(Protocol::Udp))).await;
        let is_asked = |it: &SocketAddr| {
            own.iter()
                .any(|own| own.ip().is_unspecified() && own.port() == it.port())
        };
        let others = listening.unwrap_or_default().into_iter();
        let others = others.filter(|it| is_asked(it) && !own.contains(it));
        let taken: Vec<String> = self
            .taken
            .iter()
            .cloned()
            .chain(others.map(|it| it.to_string()))
            .collect();
        (!taken.is_empty()).then(|| {
            format!(
                "containers' queries for names are not answered, for another program has the port: {}",
                taken.join("; ")
            )
        })
    }

    /// Takes sockets that another process lends.
    pub(super) fn lent(sockets: Vec<OwnedFd>) -> io::Result<Self> {
        let mut lent = Self {
            kept: true,
            ..Self::default()
        };
        for socket in sockets {
            match getsockopt(&socket, sockopt::SockType)? {
                SockType::Datagram => lent.udp.push(UdpSocket::from_std(socket.into())?),
                _ => lent.tcp.push(TcpListener::from_std(socket.into())?),
            }
        }
        Ok(lent)
    }

    /// Copies of all of them.
    pub(super) fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        let udp = self.udp.iter().map(AsFd::as_fd);
        let tcp = self.tcp.iter().map(AsFd::as_fd);
        udp.chain(tcp).map(|socket| socket.try_clone_to_owned()).collect()
    }

    /// Addresses of the sockets, each of both UDP and TCP.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.udp.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }
}

fn take_over((udp, tcp): (std::net::UdpSocket, std::net::TcpListener)) -> io::Result<(UdpSocket, TcpListener)> {
    // Those of an agent of before were bound without: beside them nothing could be held.
    setsockopt(&udp, sockopt::ReusePort, &true)?;
    setsockopt(&tcp, sockopt::ReusePort, &true)?;
    udp.set_nonblocking(true)?;
    tcp.set_nonblocking(true)?;
    Ok((UdpSocket::from_std(udp)?, TcpListener::from_std(tcp)?))
}

/// Binds UDP and TCP to the same port, also when the kernel chooses it.
fn bind_both(address: SocketAddr) -> io::Result<(UdpSocket, TcpListener)> {
    let tcp = listen(address)?;
    let udp = receive(tcp.local_addr()?)?;
    Ok((udp, tcp))
}
