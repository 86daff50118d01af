//! TCP packets as no TCP would send them.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, TcpStream};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, sendto, socket};

pub(crate) const FIN: u8 = 0x01;
pub(crate) const SYN: u8 = 0x02;
pub(crate) const RST: u8 = 0x04;
pub(crate) const PSH: u8 = 0x08;
pub(crate) const ACK: u8 = 0x10;
pub(crate) const URG: u8 = 0x20;

/// A signature (RFC 2385), which a listener that expects none drops without a word, and two no-ops.
pub(crate) const MD5: [u8; 20] = [19, 18, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 1, 1];

/// Sends one packet, past this machine's TCP.
pub(crate) fn send(from: SocketAddr, to: SocketAddr, flags: u8, options: &[u8]) {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Tcp).unwrap();
    // A raw socket of IPv6 takes no port.
    let place = SocketAddr::new(to.ip(), 0);
    let place = SockaddrStorage::from(place);
    sendto(
        socket.as_raw_fd(),
        &segment(from, to, flags, options),
        &place,
        MsgFlags::empty(),
    )
    .unwrap();
}

/// The same over IPv4 in fragments of 8 bytes (RFC 791, section 3.1): the first has the ports, and none the flags with them.
pub(crate) fn send_in_fragments(from: SocketAddrV4, to: SocketAddrV4, flags: u8, options: &[u8]) {
    let segment = segment(from.into(), to.into(), flags, options);
    let socket = socket(
        AddressFamily::Inet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::Raw,
    )
    .unwrap();
    let pieces: Vec<&[u8]> = segment.chunks(8).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let more = u16::from(index + 1 < pieces.len()) << 13;
        let mut packet = vec![0x45, 0];
        packet.extend(u16::try_from(20 + piece.len()).unwrap().to_be_bytes());
        packet.extend(from.port().to_be_bytes());
        packet.extend((more | u16::try_from(index).unwrap()).to_be_bytes());
        // The kernel fills in the checksum (raw(7)).
        packet.extend([64, 6, 0, 0]);
        packet.extend(from.ip().octets());
        packet.extend(to.ip().octets());
        packet.extend(*piece);
        let place = SockaddrStorage::from(to);
        sendto(socket.as_raw_fd(), &packet, &place, MsgFlags::empty()).unwrap();
    }
}

/// A segment of TCP (RFC 9293, section 3.1), without payload.
fn segment(from: SocketAddr, to: SocketAddr, flags: u8, options: &[u8]) -> Vec<u8> {
    let mut segment = Vec::new();
    segment.extend(from.port().to_be_bytes());
    segment.extend(to.port().to_be_bytes());
    segment.extend(1000_u32.to_be_bytes());
    segment.extend(2000_u32.to_be_bytes());
    let words = u8::try_from((20 + options.len()) / 4).unwrap();
    segment.extend([words << 4, flags]);
    segment.extend(1024_u16.to_be_bytes());
    segment.extend([0; 4]);
    segment.extend(options);
    let sum = checksum(from.ip(), to.ip(), &segment).to_be_bytes();
    segment[16..18].copy_from_slice(&sum);
    segment
}

fn checksum(from: IpAddr, to: IpAddr, segment: &[u8]) -> u16 {
    let mut bytes = Vec::new();
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend(u16::try_from(segment.len()).unwrap().to_be_bytes());
    bytes.extend([0, 6]);
    bytes.extend(segment);
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or_default()))
        .sum();
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// An ordinary connection, from a port of the caller's choice.
pub(crate) fn connect_from(from: SocketAddr, to: SocketAddr, patience: Duration) -> std::io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let socket = if to.is_ipv4() {
            tokio::net::TcpSocket::new_v4()?
        } else {
            tokio::net::TcpSocket::new_v6()?
        };
        socket.set_reuseaddr(true)?;
        socket.bind(from)?;
        let stream = tokio::time::timeout(patience, socket.connect(to))
            .await
            .map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    })
}
