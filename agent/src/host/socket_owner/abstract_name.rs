//! The user who has an abstract name.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload, Nla as _};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::unix::nlas::{Nla, UnixDiagName};
use netlink_packet_sock_diag::unix::{ShowFlags, StateFlags, UnixRequest, UnixResponse};
use nix::sys::socket::SockProtocol;

use super::{ANY, message};
use crate::host::netlink;

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
    let request = message(SockDiagMessage::UnixRequest(request), NLM_F_REQUEST | NLM_F_DUMP);
    let owners = netlink::list(SockProtocol::NetlinkSockDiag, &request, |message| {
        // Others may have names that the library can't read.
        match NetlinkMessage::deserialize(message.into_inner()).ok()?.payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(socket)) if is_named(&socket, name) => {
                Some(user(&socket))
            }
            _ => None,
        }
    })?;
    owners.into_iter().next().transpose()
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
