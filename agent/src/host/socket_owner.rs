//! The user at the other end of a local connection or datagram, and the one who has an abstract name (sock_diag(7)).

mod abstract_name;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

pub(super) use abstract_name::name_owner;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use nix::sys::socket::{MsgFlags, SockProtocol, recv};

use super::netlink;

/// "No cookie": the socket is asked for by its addresses alone (linux/inet_diag.h, INET_DIAG_NOCOOKIE).
const ANY: [u8; 8] = [0xff; 8];
/// An answer about one socket without extensions has 88 bytes, and some attributes.
const ANSWER: usize = 4 << 10;
/// The loopback interface's number in every network namespace (include/net/flow.h, LOOPBACK_IFINDEX). A socket that its owner
/// bound to the interface is found by it alone, and so is one that is bound to none.
const LOOPBACK: u32 = 1;

/// The protocol of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Protocol {
    /// A connection.
    Tcp,
    /// Datagrams.
    Udp,
}

/// The user whose socket sends from `client` to one of `servers`: what it takes for its peer, which is another address
/// than the one it reaches where it was redirected. `None` where there is no such socket on this machine, or no more.
/// Asks the kernel, which looks the socket up and walks no list, so this never waits; some microseconds.
pub fn socket_owner(protocol: Protocol, client: SocketAddr, servers: &[SocketAddr]) -> Option<u32> {
    let answers = servers.iter().map(|server| ask(protocol, client, *server));
    answers.filter_map(Result::ok).flatten().next()
}

fn ask(protocol: Protocol, client: SocketAddr, server: SocketAddr) -> io::Result<Option<u32>> {
    let (client, server) = (canonical(client), canonical(server));
    let family = match (client.ip(), server.ip()) {
        (IpAddr::V4(_), IpAddr::V4(_)) => AF_INET,
        (IpAddr::V6(_), IpAddr::V6(_)) => AF_INET6,
        _ => return Ok(None),
    };
    // As the owner sees it. For UDP the kernel has them the other way round (net/ipv4/udp_diag.c, udp_dump_one).
    let (number, from, to) = match protocol {
        Protocol::Tcp => (IPPROTO_TCP, client, server),
        Protocol::Udp => (IPPROTO_UDP, server, client),
    };
    let request = InetRequest {
        family,
        protocol: number,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: from.port(),
            destination_port: to.port(),
            source_address: from.ip(),
            destination_address: to.ip(),
            interface_id: LOOPBACK,
            cookie: ANY,
        },
    };
    let request = message(SockDiagMessage::InetRequest(request), NLM_F_REQUEST);
    let kernel = netlink::ask(SockProtocol::NetlinkSockDiag, &request)?;
    let mut answer = [0; ANSWER];
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    let answer =
        NetlinkMessage::<SockDiagMessage>::deserialize(&answer[..length.min(ANSWER)]).map_err(io::Error::other)?;
    let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) = answer.payload else {
        return Ok(None);
    };
    let header = socket.header;
    // Where there is no such connection the kernel tells of a listener at the client's address, which may be anybody's.
    let is_it = protocol == Protocol::Udp || is_between(&header.socket_id, client, server);
    // A socket that its owner has closed has no inode any more, and root for its user, whoever that was.
    Ok((is_it && header.inode != 0).then_some(header.uid))
}

/// True for the socket of a connection from `client` to `server`; a listener is to nobody.
fn is_between(socket: &SocketId, client: SocketAddr, server: SocketAddr) -> bool {
    let end = |ip, port| canonical(SocketAddr::new(ip, port));
    end(socket.source_address, socket.source_port) == client
        && end(socket.destination_address, socket.destination_port) == server
}

/// The bytes of a request.
fn message(request: SockDiagMessage, flags: u16) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    let mut message = NetlinkMessage::new(header, request.into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// IPv4 is IPv4, through whatever socket it came.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream, UdpSocket};

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, connect, setsockopt, socket, sockopt};
    use nix::unistd::getuid;

    use super::*;

    const NOWHERE: &str = "192.0.2.1:53";

    #[test]
    fn sender_of_datagrams_is_found_connected_or_not_and_behind_a_redirect() {
        for loopback in ["127.0.0.1:0", "[::1]:0"] {
            let server = UdpSocket::bind(loopback).unwrap().local_addr().unwrap();
            let connected = UdpSocket::bind(loopback).unwrap();
            connected.connect(server).unwrap();
            let loose = UdpSocket::bind(loopback).unwrap();
            for client in [&connected, &loose] {
                let client = client.local_addr().unwrap();
                let seen = socket_owner(Protocol::Udp, client, &[NOWHERE.parse().unwrap(), server]);
                assert_eq!(seen, Some(getuid().as_raw()), "{client}");
            }
            let gone = loose.local_addr().unwrap();
            drop(loose);
            assert_eq!(socket_owner(Protocol::Udp, gone, &[server]), None);
        }
        // What a redirected one has for its peer is not where it gets.
        let redirected = UdpSocket::bind("127.0.0.1:0").unwrap();
        redirected.connect("127.0.0.2:53").unwrap();
        let (client, reached) = (redirected.local_addr().unwrap(), "127.0.0.1:15053".parse().unwrap());
        let seen = |servers: &[SocketAddr]| socket_owner(Protocol::Udp, client, servers);
        assert_eq!(seen(&[reached]), None);
        assert_eq!(
            seen(&["127.0.0.2:53".parse().unwrap(), reached]),
            Some(getuid().as_raw())
        );
    }

    #[test]
    fn caller_that_has_closed_its_socket_is_nobody() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let mut caller = TcpStream::connect(server).unwrap();
        caller.write_all(b"POST /quitquitquit HTTP/1.1\r\n\r\n").unwrap();
        let client = caller.local_addr().unwrap();
        drop(caller);
        assert_eq!(socket_owner(Protocol::Tcp, client, &[server]), None);
    }

    /// Where the connection is not found the kernel looks for a listener at the caller's address and port.
    #[test]
    fn listener_at_a_caller_s_address_is_not_the_caller() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        assert_eq!(
            socket_owner(Protocol::Tcp, server, &["127.0.0.1:9".parse().unwrap()]),
            None
        );
        let everywhere = TcpListener::bind("0.0.0.0:0").unwrap();
        let caller = SocketAddr::from(([127, 0, 0, 2], everywhere.local_addr().unwrap().port()));
        assert_eq!(socket_owner(Protocol::Tcp, caller, &[server]), None);
    }

    /// No user needs a capability for it (socket(7), SO_BINDTODEVICE).
    #[test]
    fn caller_that_is_bound_to_loopback_is_found() {
        let bound = |kind| {
            let socket = socket(AddressFamily::Inet, kind, SockFlag::empty(), None).unwrap();
            setsockopt(&socket, sockopt::BindToDevice, &"lo".into()).unwrap();
            socket
        };
        let us = Some(getuid().as_raw());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = listener.local_addr().unwrap();
        let caller = bound(SockType::Stream);
        connect(caller.as_raw_fd(), &SockaddrStorage::from(server)).unwrap();
        let (_accepted, client) = listener.accept().unwrap();
        assert_eq!(socket_owner(Protocol::Tcp, client, &[server]), us);
        let sender = UdpSocket::from(bound(SockType::Datagram));
        sender.connect(server).unwrap();
        assert_eq!(socket_owner(Protocol::Udp, sender.local_addr().unwrap(), &[server]), us);
    }

    #[test]
    fn caller_is_found_and_a_stranger_is_not() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let server = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let _stream = TcpStream::connect(server).unwrap();
        // Mapped into IPv6, as a listener for both families sees it.
        let (accepted, client) = listener.accept().unwrap();
        let owner = socket_owner(Protocol::Tcp, client, &[accepted.local_addr().unwrap()]);
        assert_eq!(owner, Some(getuid().as_raw()));
        let stranger = "192.0.2.9:4711".parse().unwrap();
        assert_eq!(socket_owner(Protocol::Tcp, stranger, &[server]), None);
    }
}
