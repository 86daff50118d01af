//! Contents of nf_tables, and so in iptables over nf_tables too, as the kernel tells (linux/netfilter/nf_tables.h): no
//! program is started to look.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NlasIterator, parse_string};
use nix::sys::socket::SockProtocol;

use super::{Host, netlink};

/// Lengths of struct nlmsghdr, struct nfgenmsg and struct nlattr (linux/netlink.h, linux/netfilter/nfnetlink.h).
const HEADER: usize = 16;
const NFGENMSG: usize = 4;
const NLATTR: usize = 4;
/// Requests: netfilter's part in the upper byte (NFNL_SUBSYS_NFTABLES), which is nf_tables'.
const NFT_MSG_GETTABLE: u16 = 10 << 8 | 1;
const NFT_MSG_GETCHAIN: u16 = 10 << 8 | 4;
const NFT_MSG_GETRULE: u16 = 10 << 8 | 7;
/// Attributes: of a table its name, and what its maker wrote beside it; of a chain and of a rule the table, and the
/// chain's name.
const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_USERDATA: u16 = 6;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
/// Type of a comment among the things that nft(8) writes beside a table: type, length, value (libnftnl/udata.h,
/// NFTNL_UDATA_TABLE_COMMENT).
const COMMENT: u8 = 0;

/// Families of tables, by their numbers (linux/netfilter.h, NFPROTO_*).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FilterFamily {
    /// IP of both versions.
    Inet = 1,
    /// IPv4 alone, as iptables has it.
    Ip = 2,
    /// Frames that a bridge passes on.
    Bridge = 7,
    /// IPv6 alone, as ip6tables has it.
    Ip6 = 10,
}

/// A table in the kernel.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct FilterTable {
    /// The comment that nft(8) shows; empty without one, and of kernels before 5.10.
    pub comment: String,
    /// Rules in each of its chains.
    pub chains: BTreeMap<String, usize>,
}

/// A way to ask the kernel.
#[derive(Debug)]
pub struct PacketFilter(OwnedFd);

impl Host {
    /// Opens a way to ask.
    ///
    /// # Errors
    /// Where there is no nf_tables; what asks fails then, too, and who may not ask.
    pub fn packet_filter(&self) -> io::Result<PacketFilter> {
        self.runner.netfilter().map(PacketFilter)
    }
}

/// A socket to netfilter in the caller's network namespace.
pub(super) fn connect() -> io::Result<OwnedFd> {
    netlink::connect(SockProtocol::NetlinkNetFilter)
}

impl PacketFilter {
    /// The table of that name; `None`: there is none.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn table(&self, family: FilterFamily, name: &str) -> io::Result<Option<FilterTable>> {
        if self.comment(family, name)?.is_none() {
            return Ok(None);
        }
        let own = self
            .chains_and_tables(family)?
            .into_iter()
            .filter(|(table, _)| table == name);
        let mut chains: BTreeMap<String, usize> = own.map(|(_, chain)| (chain, 0)).collect();
        let rules = self.list(NFT_MSG_GETRULE, family, Some((NFTA_RULE_TABLE, name)), |rule| {
            let is_meant = text(rule, NFTA_RULE_TABLE).as_deref() == Some(name);
            text(rule, NFTA_RULE_CHAIN).filter(|_| is_meant)
        })?;
        for chain in rules {
            *chains.entry(chain).or_default() += 1;
        }
        // Asked again: a table that is deleted between two lists is none, and not one without chains.
        let comment = self.comment(family, name)?;
        Ok(comment.map(|comment| FilterTable { comment, chains }))
    }

    /// The comment of the table of that name; `None`: there is none.
    fn comment(&self, family: FilterFamily, name: &str) -> io::Result<Option<String>> {
        let found = self.list(NFT_MSG_GETTABLE, family, None, |table| {
            let is_meant = text(table, NFTA_TABLE_NAME).as_deref() == Some(name);
            is_meant.then(|| comment(&attribute(table, NFTA_TABLE_USERDATA).unwrap_or_default()))
        })?;
        Ok(found.into_iter().next())
    }

    /// The names of all chains of a family, whichever table has them.
    ///
    /// # Errors
    /// When the kernel doesn't tell.
    pub fn chains(&self, family: FilterFamily) -> io::Result<Vec<String>> {
        let found = self.chains_and_tables(family)?;
        Ok(found.into_iter().map(|(_, chain)| chain).collect())
    }

    fn chains_and_tables(&self, family: FilterFamily) -> io::Result<Vec<(String, String)>> {
        self.list(NFT_MSG_GETCHAIN, family, None, |chain| {
            text(chain, NFTA_CHAIN_TABLE).zip(text(chain, NFTA_CHAIN_NAME))
        })
    }

    fn list<T>(
        &self,
        kind: u16,
        family: FilterFamily,
        named: Option<(u16, &str)>,
        take: impl Fn(&[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        let question = request(kind, family, named);
        netlink::list_on(&self.0, &question, |message| take(message.payload()))
    }
}

/// A whole message that asks for a list, with one attribute of text at most.
fn request(kind: u16, family: FilterFamily, named: Option<(u16, &str)>) -> Vec<u8> {
    let mut message = vec![0; HEADER];
    // Of version 0, about no resource.
    message.extend([family as u8, 0, 0, 0]);
    if let Some((kind, name)) = named {
        let length = (NLATTR + name.len() + 1) as u16;
        message.extend(length.to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(name.as_bytes());
        message.push(0);
        message.resize(message.len().next_multiple_of(NLATTR), 0);
    }
    let length = message.len() as u32;
    let mut header = NetlinkBuffer::new(&mut message[..]);
    header.set_length(length);
    header.set_message_type(kind);
    header.set_flags(NLM_F_REQUEST | NLM_F_DUMP);
    message
}

/// The value of an attribute behind struct nfgenmsg.
pub(super) fn attribute(payload: &[u8], kind: u16) -> Option<Vec<u8>> {
    let mut attributes = NlasIterator::new(payload.get(NFGENMSG..)?).flatten();
    let attribute = attributes.find(|attribute| attribute.kind() == kind)?;
    Some(attribute.value().to_vec())
}

fn text(payload: &[u8], kind: u16) -> Option<String> {
    parse_string(&attribute(payload, kind)?).ok()
}

/// nft(8)'s comment among what is written beside a table; empty where there is none.
pub(super) fn comment(mut beside: &[u8]) -> String {
    while let [kind, length, rest @ ..] = beside {
        let Some((value, rest)) = rest.split_at_checked(usize::from(*length)) else {
            break;
        };
        if *kind == COMMENT {
            return parse_string(value).unwrap_or_default();
        }
        beside = rest;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comment_is_found_among_what_else_is_beside_a_table() {
        assert_eq!(comment(b"\x07\x01x\x00\x08rules a\0"), "rules a");
        for other in [&b""[..], b"\x00", b"\x00\x09short", b"\x07\x01x"] {
            assert_eq!(comment(other), "", "{other:?}");
        }
    }

    #[test]
    fn request_is_a_whole_message_with_its_name_at_a_boundary() {
        let message = request(NFT_MSG_GETTABLE, FilterFamily::Inet, Some((NFTA_TABLE_NAME, "abcd")));
        assert_eq!(message.len(), HEADER + NFGENMSG + NLATTR + 8);
        assert_eq!(NetlinkBuffer::new(&message[..]).length() as usize, message.len());
        assert_eq!(text(&message[HEADER..], NFTA_TABLE_NAME).as_deref(), Some("abcd"));
    }

    proptest::proptest! {
        #[test]
        fn message_of_any_bytes_is_read(packet in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = text(&packet, NFTA_CHAIN_NAME);
            comment(&packet);
        }
    }
}
