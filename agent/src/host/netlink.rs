//! Questions to the kernel over netlink(7). It has answered by the time that one is sent, so that nobody waits.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, parse_i32};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The kernel puts no more into one packet (net/netlink/af_netlink.c, netlink_recvmsg).
const PACKET: usize = 32 << 10;
/// Messages begin at multiples of it (linux/netlink.h, NLMSG_ALIGNTO).
const ALIGN: usize = 4;

/// A socket from which the answer to `request`, a whole message, is to be read.
pub(super) fn ask(protocol: SockProtocol, request: &[u8]) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let kernel = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
    send(kernel.as_raw_fd(), request, MsgFlags::empty())?;
    Ok(kernel)
}

/// Hands `take` each message of the list that `request` asks for, until it gives a value; `None`: it gave none.
///
/// # Errors
/// When the kernel refuses to list it.
pub(super) fn list<T>(
    protocol: SockProtocol,
    request: &[u8],
    mut take: impl FnMut(NetlinkBuffer<&[u8]>) -> Option<T>,
) -> io::Result<Option<T>> {
    let kernel = ask(protocol, request)?;
    let mut packet = vec![0; PACKET];
    loop {
        // The kernel has the next part ready as soon as the one before was read.
        let length = recv(kernel.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
        if let ControlFlow::Break(taken) = read(packet.get(..length).unwrap_or_default(), &mut take)? {
            return Ok(taken);
        }
    }
}

/// Reads one packet of a list; breaks at its end, or with what was taken.
fn read<T>(
    mut packet: &[u8],
    take: &mut impl FnMut(NetlinkBuffer<&[u8]>) -> Option<T>,
) -> io::Result<ControlFlow<Option<T>>> {
    while !packet.is_empty() {
        let message = NetlinkBuffer::new_checked(packet).map_err(io::Error::other)?;
        let next = (message.length() as usize).next_multiple_of(ALIGN);
        match message.message_type() {
            NLMSG_DONE => return Ok(ControlFlow::Break(None)),
            NLMSG_ERROR => return Err(error(message.payload())),
            _ => {
                if let Some(taken) = take(message) {
                    return Ok(ControlFlow::Break(Some(taken)));
                }
            }
        }
        packet = packet.get(next..).unwrap_or_default();
    }
    Ok(ControlFlow::Continue(()))
}

/// The error of struct nlmsgerr, which begins with its number below zero (linux/netlink.h).
fn error(payload: &[u8]) -> io::Error {
    match payload.first_chunk::<4>().map(|number| parse_i32(number)) {
        Some(Ok(number)) => io::Error::from_raw_os_error(number.saturating_neg()),
        _ => io::Error::other("the kernel refuses, without a reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of a type, with a payload.
    fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut message = vec![0; 16];
        message.extend(payload);
        let length = message.len() as u32;
        let mut header = NetlinkBuffer::new(&mut message[..]);
        header.set_length(length);
        header.set_message_type(kind);
        message.resize(message.len().next_multiple_of(ALIGN), 0);
        message
    }

    fn kinds(packet: &[u8], until: u16) -> (Vec<u16>, io::Result<ControlFlow<Option<u16>>>) {
        let mut kinds = Vec::new();
        let ended = read(packet, &mut |message| {
            kinds.push(message.message_type());
            (message.message_type() == until).then_some(until)
        });
        (kinds, ended)
    }

    #[test]
    fn messages_are_read_until_one_is_taken_or_the_list_ends() {
        let packet = [message(16, b"abcde"), message(17, b""), message(18, b"f")].concat();
        let (seen, ended) = kinds(&packet, 0);
        assert_eq!((seen, ended.unwrap()), (vec![16, 17, 18], ControlFlow::Continue(())));
        let (seen, ended) = kinds(&packet, 17);
        assert_eq!((seen, ended.unwrap()), (vec![16, 17], ControlFlow::Break(Some(17))));
        let (seen, ended) = kinds(&[message(16, b""), message(NLMSG_DONE, b"")].concat(), 0);
        assert_eq!((seen, ended.unwrap()), (vec![16], ControlFlow::Break(None)));
    }

    #[test]
    fn refusal_of_the_kernel_is_its_error() {
        let refused = message(NLMSG_ERROR, &(-1i32).to_ne_bytes());
        let error = kinds(&refused, 0).1.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(kinds(&message(NLMSG_ERROR, b""), 0).1.is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_packet_is_read(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = kinds(&packet, 0);
        }
    }
}
