//! Routes as the kernel chooses them for packets of one user, which a rule (`ip rule … uidrange`) may send elsewhere than all
//! others' (linux/rtnetlink.h).

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use nix::libc::{AF_INET, AF_INET6};
use nix::net::if_::if_indextoname;
use nix::sys::socket::{MsgFlags, SockProtocol, recv};

use super::netlink;

/// Lengths of struct nlmsghdr and struct rtmsg.
const HEADER: usize = 16;
const RTMSG: usize = 12;
const RTM_GETROUTE: u16 = 26;
/// Attributes.
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PREFSRC: u16 = 7;
const RTA_UID: u16 = 25;
/// An answer about one route is no longer.
const ANSWER: usize = 4 << 10;

/// The way of packets to one address.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Route {
    /// Index of the interface by which they leave.
    interface: u32,
    gateway: Option<IpAddr>,
    /// The source of packets that have none yet.
    source: Option<IpAddr>,
}

impl Route {
    /// The route to `target` of packets that are sent by user `uid`.
    ///
    /// # Errors
    /// Where there is none, and when the kernel doesn't tell.
    pub(crate) fn of(uid: u32, target: IpAddr) -> io::Result<Self> {
        let kernel = netlink::ask(SockProtocol::NetlinkRoute, &request(uid, target))?;
        let mut answer = vec![0; ANSWER];
        let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
        let take = |message: NetlinkBuffer<&[u8]>| read(message.payload());
        let mut list = netlink::List::new(&take);
        list.read(answer.get(..length).unwrap_or_default())?;
        list.taken
            .pop()
            .ok_or_else(|| io::Error::other("the kernel tells no route"))
    }
}

impl fmt::Display for Route {
    /// Writes the route as `ip route get` does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = if_indextoname(self.interface).ok().filter(|name| !name.is_empty());
        let name = name
            .as_ref()
            .map_or_else(|| "nowhere".into(), |name| name.to_string_lossy());
        let part = |word: &str, ip: Option<IpAddr>| ip.map_or(String::new(), |ip| format!(" {word} {ip}"));
        write!(f, "dev {name}{}{}", part("via", self.gateway), part("src", self.source))
    }
}

fn request(uid: u32, target: IpAddr) -> Vec<u8> {
    let (family, address) = match target {
        IpAddr::V4(ip) => (AF_INET, ip.octets().to_vec()),
        IpAddr::V6(ip) => (AF_INET6, ip.octets().to_vec()),
    };
    let mut message = vec![0; HEADER + RTMSG];
    message[HEADER] = family as u8;
    message[HEADER + 1] = (address.len() * 8) as u8;
    for (kind, value) in [(RTA_DST, address.as_slice()), (RTA_UID, &uid.to_ne_bytes())] {
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
    }
    let length = message.len() as u32;
    let mut header = NetlinkBuffer::new(&mut message[..]);
    header.set_length(length);
    header.set_message_type(RTM_GETROUTE);
    header.set_flags(NLM_F_REQUEST);
    message
}

fn read(payload: &[u8]) -> Option<Route> {
    let mut route = Route::default();
    for attribute in NlasIterator::new(payload.get(RTMSG..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            RTA_OIF => route.interface = u32::from_ne_bytes(value.try_into().ok()?),
            RTA_GATEWAY => route.gateway = address(value),
            RTA_PREFSRC => route.source = address(value),
            _ => {}
        }
    }
    Some(route)
}

fn address(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn route_to_loopback_is_by_lo_whoever_asks() {
        for target in ["127.0.0.1", "127.9.9.9"] {
            let target = target.parse().unwrap();
            let route = Route::of(1337, target).unwrap();
            assert_eq!(route, Route::of(0, target).unwrap());
            assert!(route.to_string().starts_with("dev lo src 127."), "{route}");
        }
    }

    proptest::proptest! {
        #[test]
        fn answer_of_any_bytes_is_read(payload in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = read(&payload);
        }
    }
}
