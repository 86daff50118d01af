//! Questions to the kernel over netlink(7). It has answered by the time that one is sent, so that nobody waits.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use netlink_packet_core::{NLM_F_DUMP_INTR, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, parse_i32};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

/// The kernel puts no more into one packet (net/netlink/af_netlink.c, netlink_recvmsg).
const PACKET: usize = 32 << 10;
/// Messages begin at multiples of it (linux/netlink.h, NLMSG_ALIGNTO).
const ALIGN: usize = 4;

/// A socket to one part of the kernel, in the caller's network namespace.
pub(super) fn connect(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?)
}

/// A socket from which the answer to `request`, a whole message, is to be read.
pub(super) fn ask(protocol: SockProtocol, request: &[u8]) -> io::Result<OwnedFd> {
    let kernel = connect(protocol)?;
    send(kernel.as_raw_fd(), request, MsgFlags::empty())?;
    Ok(kernel)
}

/// Most times that a list is asked for which changes while the kernel makes it: a change of many rules lasts longer than
/// some tries.
const TRIES: usize = 20;

/// Lists as `list_on` does, over a socket of its own.
///
/// # Errors
/// When the kernel refuses to list it, or it changes each time while it is made.
pub(super) fn list<T>(
    protocol: SockProtocol,
    request: &[u8],
    take: impl Fn(NetlinkBuffer<&[u8]>) -> Option<T>,
) -> io::Result<Vec<T>> {
    list_on(&connect(protocol)?, request, take)
}

/// Messages of the list that `request` asks for, as `take` reads them; whole lists alone. After an error the socket is
/// of no use.
///
/// # Errors
/// When the kernel refuses to list it, or it changes each time while it is made.
pub(super) fn list_on<T>(
    kernel: &OwnedFd,
    request: &[u8],
    take: impl Fn(NetlinkBuffer<&[u8]>) -> Option<T>,
) -> io::Result<Vec<T>> {
    for _ in 0..TRIES {
        send(kernel.as_raw_fd(), request, MsgFlags::empty())?;
        let (mut list, mut packet) = (List::new(&take), vec![0; PACKET]);
        while !list.ended {
            // The kernel has the next part ready as soon as the one before was read.
            let length = recv(kernel.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
            list.read(packet.get(..length).unwrap_or_default())?;
        }
        if !list.torn {
            return Ok(list.taken);
        }
        // Whoever changes it may be waiting for this processor.
        std::thread::yield_now();
    }
    Err(io::Error::other("what the kernel lists changes all the time"))
}

/// A list, as far as it was read.
pub(super) struct List<'a, F, T> {
    take: &'a F,
    pub(super) taken: Vec<T>,
    /// True when the list changed while the kernel made it: something may lack (linux/netlink.h, NLM_F_DUMP_INTR).
    torn: bool,
    ended: bool,
}

impl<'a, F: Fn(NetlinkBuffer<&[u8]>) -> Option<T>, T> List<'a, F, T> {
    pub(super) fn new(take: &'a F) -> Self {
        Self {
            take,
            taken: Vec::new(),
            torn: false,
            ended: false,
        }
    }

    /// Reads one packet of it.
    pub(super) fn read(&mut self, mut packet: &[u8]) -> io::Result<()> {
        while !packet.is_empty() && !self.ended {
            let message = NetlinkBuffer::new_checked(packet).map_err(io::Error::other)?;
            let next = (message.length() as usize).next_multiple_of(ALIGN);
            self.torn |= message.flags() & NLM_F_DUMP_INTR != 0;
            match message.message_type() {
                NLMSG_DONE => self.ended = true,
                NLMSG_ERROR => return Err(error(message.payload())),
                _ => self.taken.extend((self.take)(message)),
            }
            packet = packet.get(next..).unwrap_or_default();
        }
        Ok(())
    }
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

    fn read(packet: &[u8]) -> io::Result<(Vec<u16>, bool, bool)> {
        let kind = |message: NetlinkBuffer<&[u8]>| Some(message.message_type());
        let mut list = List::new(&kind);
        list.read(packet)?;
        Ok((list.taken, list.ended, list.torn))
    }

    #[test]
    fn messages_are_taken_until_the_list_ends() {
        let packet = [message(16, b"abcde"), message(17, b""), message(18, b"f")].concat();
        assert_eq!(read(&packet).unwrap(), (vec![16, 17, 18], false, false));
        let packet = [message(16, b""), message(NLMSG_DONE, b"")].concat();
        assert_eq!(read(&packet).unwrap(), (vec![16], true, false));
    }

    #[test]
    fn list_that_changed_meanwhile_is_torn() {
        let mut changed = message(16, b"");
        NetlinkBuffer::new(&mut changed[..]).set_flags(NLM_F_DUMP_INTR);
        assert_eq!(read(&changed).unwrap(), (vec![16], false, true));
    }

    #[test]
    fn refusal_of_the_kernel_is_its_error() {
        let refused = message(NLMSG_ERROR, &(-1i32).to_ne_bytes());
        let error = read(&refused).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(read(&message(NLMSG_ERROR, b"")).is_err());
    }

    proptest::proptest! {
        #[test]
        fn packet_of_any_bytes_is_read(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&packet);
        }
    }
}
