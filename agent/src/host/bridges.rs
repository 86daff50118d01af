//! Bridges, and who is on them, as the kernel tells (rtnetlink(7)).
//!
//! A bridge is inner where each of its ports is one end of a veth pair, as containers have it, and no default route leaves
//! by it. One with a network card, a tunnel or a virtual machine on it has others than this machine's containers on it: what
//! they send is not this machine's.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Once;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator, parse_string, parse_u32};
use nix::sys::socket::SockProtocol;

use super::netlink;
use super::network::{ELSEWHERE, source_towards};
use crate::facts::HostBridge;

/// Lengths of struct nlmsghdr and struct ifinfomsg (linux/netlink.h, linux/rtnetlink.h).
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;
/// Types of messages (linux/rtnetlink.h).
const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
/// Attributes of a link, of which the last one has some of its own (linux/if_link.h).
const IFLA_IFNAME: u16 = 3;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

/// An interface.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Link {
    index: u32,
    name: String,
    /// `bridge`, `veth`; empty for a network card.
    kind: String,
    /// The bridge that it is a port of.
    master: Option<u32>,
}

/// All bridges of the caller's network namespace, in the kernel's order.
///
/// # Errors
/// When the kernel doesn't tell.
pub(super) fn bridges() -> io::Result<Vec<HostBridge>> {
    let addresses: Vec<(String, IpNet)> = if_addrs::get_if_addrs()?
        .into_iter()
        .filter_map(|it| {
            let prefix = match &it.addr {
                if_addrs::IfAddr::V4(address) => address.prefixlen,
                if_addrs::IfAddr::V6(address) => address.prefixlen,
            };
            Some((it.name.clone(), IpNet::new(it.ip(), prefix).ok()?))
        })
        .collect();
    let elsewhere = ELSEWHERE.iter().filter_map(|address| address.parse().ok());
    let outside: Vec<IpAddr> = elsewhere.filter_map(|address| source_towards(address).ok()).collect();
    Ok(of(&links()?, &addresses, &outside))
}

/// True for a name that means itself in the rules of nft(8) and iptables(8): `*` and `+` are many names, and a quote or a blank
/// ends one. Others are of nobody's making who runs containers.
fn is_plain(name: &str) -> bool {
    let is_plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_.:@-".contains(&byte));
    if !is_plain {
        static TOLD: Once = Once::new();
        TOLD.call_once(|| tracing::warn!("bridge {name:?} is left alone: rules can't name it"));
    }
    is_plain
}

/// The bridges among `links`. `outside` are the addresses that packets leave with by a default route.
fn of(links: &[Link], addresses: &[(String, IpNet)], outside: &[IpAddr]) -> Vec<HostBridge> {
    let bridges = links
        .iter()
        .filter(|link| link.kind == "bridge" && is_plain(&link.name));
    bridges
        .map(|bridge| {
            let mut ports = links.iter().filter(|link| link.master == Some(bridge.index));
            let of_it = || addresses.iter().filter(|(name, _)| *name == bridge.name);
            let global = of_it().filter(
                |(_, address)| !matches!(address, IpNet::V6(address) if address.addr().is_unicast_link_local()),
            );
            let global: BTreeSet<IpNet> = global.map(|(_, address)| *address).collect();
            let networks: BTreeSet<IpNet> = global.iter().map(IpNet::trunc).collect();
            let addresses: BTreeSet<IpAddr> = global.iter().map(IpNet::addr).collect();
            HostBridge {
                interface: bridge.name.clone(),
                is_inner: !networks.is_empty()
                    && ports.all(|port| port.kind == "veth")
                    && !of_it().any(|(_, address)| outside.contains(&address.addr())),
                addresses: addresses.into_iter().collect(),
                networks: networks.into_iter().collect(),
            }
        })
        .collect()
}

/// All interfaces. Of what the kernel says of one, no more is read than is needed: a later kernel says other things.
fn links() -> io::Result<Vec<Link>> {
    // Of no number and no sender, and about all interfaces.
    let mut request = [0; HEADER + IFINFOMSG];
    let mut header = NetlinkBuffer::new(&mut request[..]);
    header.set_length((HEADER + IFINFOMSG) as u32);
    header.set_message_type(RTM_GETLINK);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);

    netlink::list(SockProtocol::NetlinkRoute, &request, |message| {
        (message.message_type() == RTM_NEWLINK).then(|| link(message.payload()))?
    })
}

pub(super) fn link(message: &[u8]) -> Option<Link> {
    let mut link = Link {
        // After the family and the type of the hardware.
        index: parse_u32(message.get(4..8)?).ok()?,
        ..Link::default()
    };
    for attribute in NlasIterator::new(message.get(IFINFOMSG..)?).flatten() {
        match attribute.kind() {
            IFLA_IFNAME => link.name = parse_string(attribute.value()).ok()?,
            IFLA_MASTER => link.master = parse_u32(attribute.value()).ok(),
            IFLA_LINKINFO => {
                let kind = NlasIterator::new(attribute.value())
                    .flatten()
                    .find(|attribute| attribute.kind() == IFLA_INFO_KIND);
                link.kind = kind.map_or(Ok(String::new()), |kind| parse_string(kind.value())).ok()?;
            }
            _ => {}
        }
    }
    Some(link)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(index: u32, kind: &str, master: Option<u32>) -> Link {
        Link {
            index,
            name: format!("if{index}"),
            kind: kind.to_owned(),
            master,
        }
    }

    fn inner(ports: &[&str], addresses: &[&str], outside: &[&str]) -> bool {
        let mut links = vec![port(1, "", None), port(9, "bridge", None)];
        links.extend((10..).zip(ports).map(|(index, kind)| port(index, kind, Some(9))));
        let addresses: Vec<_> = addresses
            .iter()
            .map(|address| ("if9".to_owned(), address.parse().unwrap()))
            .collect();
        let outside: Vec<IpAddr> = outside.iter().map(|address| address.parse().unwrap()).collect();
        let found = of(&links, &addresses, &outside);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].interface, "if9");
        found[0].is_inner
    }

    #[test]
    fn bridge_with_containers_alone_is_inner_and_one_that_others_are_on_is_not() {
        let gateway = ["172.18.0.1/16"];
        assert!(inner(&[], &gateway, &["10.0.0.3"]));
        assert!(inner(&["veth", "veth"], &gateway, &["10.0.0.3"]));
        for other in ["", "vlan", "vxlan", "bond", "tun"] {
            assert!(!inner(&["veth", other], &gateway, &["10.0.0.3"]), "{other}");
        }
        assert!(!inner(&["veth"], &["10.0.0.3/24"], &["10.0.0.3"]), "the way out");
        assert!(!inner(&["veth"], &["fe80::1/64"], &[]), "nobody's gateway");
    }

    #[test]
    fn bridge_that_rules_can_not_name_is_left_alone() {
        for (name, is_there) in [
            ("br-0a1b", true),
            ("a\"b", false),
            ("br*", false),
            ("br+", false),
            ("a b", false),
        ] {
            let name = name.to_owned();
            let bridge = Link {
                name,
                ..port(9, "bridge", None)
            };
            assert_eq!(!of(&[bridge], &[], &[]).is_empty(), is_there);
        }
    }

    #[test]
    fn bridge_has_its_addresses_and_their_networks() {
        let addresses: Vec<_> = ["fd00:d::1/64", "172.18.0.1/16", "fe80::1/64", "172.18.9.9/16"]
            .map(|address| ("if9".to_owned(), address.parse().unwrap()))
            .into();
        let found = of(&[port(9, "bridge", None)], &addresses, &[]);
        let wanted: Vec<IpNet> = ["172.18.0.0/16", "fd00:d::/64"].map(|net| net.parse().unwrap()).into();
        assert_eq!(found[0].networks, wanted);
        let wanted: Vec<IpAddr> = ["172.18.0.1", "172.18.9.9", "fd00:d::1"]
            .map(|ip| ip.parse().unwrap())
            .into();
        assert_eq!(found[0].addresses, wanted);
        let has = |ip: &str| found[0].has_container(ip.parse().unwrap());
        assert!(has("172.18.0.2") && !has("172.19.0.2"));
    }

    #[test]
    fn kernel_lists_lo() {
        let links = links().unwrap();
        assert!(links.iter().any(|link| link.name == "lo" && link.kind.is_empty()));
    }

    proptest::proptest! {
        #[test]
        fn message_of_any_bytes_is_read(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = link(&packet);
        }
    }
}
