//! The user who has an abstract name.

use std::io;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload, Nla as _};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::unix::nlas::{Nla, UnixDiagName};
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, UnixResponse};
use nix::sys::socket::{MsgFlags, recv};

use super::{ANY, request_of};

/// The kernel puts no more into one packet (net/netlink/af_netlink.c, netlink_recvmsg).
const PACKET: usize = 32 << 10;
/// Messages begin at multiples of it (linux/netlink.h, NLMSG_ALIGNTO).
const ALIGN: usize = 4;
/// UDIAG_SHOW_UID and UNIX_DIAG_UID (linux/unix_diag.h; linux 5.3).
const SHOW_USER: ShowFlags = ShowFlags::from_bits_retain(0x40);
const USER: u16 = 7;

/// The user whose socket has the abstract name `name` (unix(7)) in this network namespace, whether it listens or not;
/// `None`: nobody has it. Goes through all unix sockets of the namespace, and waits for none of their owners.
///
/// # Errors
/// Where the kernel doesn't tell: one without unix_diag.
pub(in crate::host) fn name_owner(name: &[u8]) -> io::Result<Option<u32>> {
    let request = UnixRequest {
        // A socket that only has a name is in neither of those that the library knows.
        state_flags: StateFlags::from_bits_retain(u32::MAX),
        inode: 0,
        show_flags: ShowFlags::NAME | SHOW_USER,
        cookie: ANY,
    };
    let kernel = request_of(SockDiagMessage::UnixRequest(request), NLM_F_REQUEST | NLM_F_DUMP)?;
    let mut packet = [0; PACKET];
    loop {
        let length = recv(kernel.as_raw_fd(), &mut packet, MsgFlags::MSG_DONTWAIT)?;
        let mut rest = packet.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            let buffer = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
            // Others may have names that the library can't read.
            let payload = NetlinkMessage::deserialize(rest).map(|message| message.payload);
            match payload {
                Ok(NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(socket))) if is_named(&socket, name) => {
                    return user(&socket).map(Some);
                }
                Ok(NetlinkPayload::Done(_)) => return Ok(None),
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                _ => {}
            }
            let next = (buffer.length() as usize).next_multiple_of(ALIGN);
            rest = rest.get(next..).unwrap_or_default();
        }
    }
}

fn is_named(socket: &UnixResponse, name: &[u8]) -> bool {
    matches!(socket.name(), Some(UnixDiagName::Abstract(other)) if other == name)
}

fn user(socket: &UnixResponse) -> io::Result<u32> {
    let user = socket.nlas.iter().find_map(|attribute| match attribute {
        Nla::Other(other) if other.kind() == USER && other.value_len() == size_of::<u32>() => Some(other),
        _ => None,
    });
    let user = user.ok_or_else(|| io::Error::other("the kernel doesn't tell whose a socket is: linux 5.3 does"))?;
    let mut number = [0; size_of::<u32>()];
    user.emit_value(&mut number);
    Ok(u32::from_ne_bytes(number))
}
