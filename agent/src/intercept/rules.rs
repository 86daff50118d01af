//! Netfilter rules as values, in netfilter's and Istio's terms. Pure: what is to be, not how it gets there.
//!
//! One model for both backends and both families. Chains are Istio's, so that who knows them finds them.

use std::net::IpAddr;
use std::ops::RangeInclusive;

use ipnet::IpNet;

/// The loopback interface, which every network namespace has.
pub(super) const LO: &str = "lo";

/// Rules, each chain's in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Ruleset {
    pub(super) rules: Vec<Rule>,
}

impl Ruleset {
    /// Number of rules; one for both families counts once.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True when nothing is to be redirected.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn push(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    /// The tables of IP's that have rules.
    pub(super) fn tables(&self) -> impl Iterator<Item = Table> {
        Table::ALL
            .into_iter()
            .filter(|table| self.rules.iter().any(|rule| rule.table == *table))
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Table {
    /// Frames that a bridge passes from one of its ports to another; IP's tables see none of them. Only nftables has
    /// it.
    Bridge,
    Mangle,
    Nat,
    Raw,
}

impl Table {
    /// IP's, in the order Istio writes them.
    pub(super) const ALL: [Self; 3] = [Self::Mangle, Self::Nat, Self::Raw];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::Mangle => "mangle",
            Self::Nat => "nat",
            Self::Raw => "raw",
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Chain {
    /// Netfilter's own.
    Prerouting,
    /// Netfilter's own.
    Input,
    /// Netfilter's own.
    Forward,
    /// Netfilter's own.
    Output,
    /// Netfilter's own.
    Postrouting,
    /// Packets that arrive at the VM.
    IstioInbound,
    /// Packets that the VM sends.
    IstioOutput,
    /// DNS that this VM sends.
    IstioOutputDns,
    /// Packets that a container behind a bridge sends. Not in Istio.
    IstioContainer,
    /// Packets that are forwarded to a container behind a bridge. Not in Istio.
    IstioForward,
    /// Packets that users of the VM send to the application. Not in Istio.
    IstioLocal,
    /// Envoy's questions to the cloud's metadata server. Not in Istio.
    IstioIdentity,
    /// Answers of those who listen on Envoy's and the agent's ports. Not in Istio.
    IstioListeners,
    /// Connections that conntrack takes up in their middle. Not in Istio.
    IstioLoose,
    /// To Envoy's outbound listener.
    IstioRedirect,
    /// To Envoy's inbound listener.
    IstioInRedirect,
    IstioDrop,
}

impl Chain {
    #[cfg(test)]
    pub(super) const ALL: [Self; 17] = [
        Self::Prerouting,
        Self::Input,
        Self::Forward,
        Self::Output,
        Self::Postrouting,
        Self::IstioInbound,
        Self::IstioOutput,
        Self::IstioOutputDns,
        Self::IstioContainer,
        Self::IstioForward,
        Self::IstioLocal,
        Self::IstioIdentity,
        Self::IstioListeners,
        Self::IstioLoose,
        Self::IstioRedirect,
        Self::IstioInRedirect,
        Self::IstioDrop,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "PREROUTING",
            Self::Input => "INPUT",
            Self::Forward => "FORWARD",
            Self::Output => "OUTPUT",
            Self::Postrouting => "POSTROUTING",
            Self::IstioInbound => "ISTIO_INBOUND",
            Self::IstioOutput => "ISTIO_OUTPUT",
            Self::IstioOutputDns => "ISTIO_OUTPUT_DNS",
            Self::IstioContainer => "ISTIO_CONTAINER",
            Self::IstioForward => "ISTIO_FORWARD",
            Self::IstioLocal => "ISTIO_LOCAL",
            Self::IstioIdentity => "ISTIO_IDENTITY",
            Self::IstioListeners => "ISTIO_LISTENERS",
            Self::IstioLoose => "ISTIO_LOOSE",
            Self::IstioRedirect => "ISTIO_REDIRECT",
            Self::IstioInRedirect => "ISTIO_IN_REDIRECT",
            Self::IstioDrop => "ISTIO_DROP",
        }
    }

    pub(super) fn is_built_in(self) -> bool {
        matches!(
            self,
            Self::Prerouting | Self::Input | Self::Forward | Self::Output | Self::Postrouting
        )
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rule {
    pub(super) table: Table,
    pub(super) chain: Chain,
    /// `None`: both.
    pub(super) family: Option<Family>,
    /// Before all that the chain holds when this rule is added, instead of after.
    pub(super) first: bool,
    pub(super) matches: Vec<Match>,
    pub(super) verdict: Verdict,
}

impl Rule {
    pub(super) fn is_for(&self, family: Family) -> bool {
        self.family.is_none_or(|own| own == family)
    }
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Match {
    In(String),
    NotIn(String),
    Out(String),
    NotOut(String),
    Source(IpNet),
    Dest(IpNet),
    NotDest(IpNet),
    /// Tagged twice with VLAN 0, which says nothing and hides from the bridge what the receiver then reads.
    NestedTag,
    /// A router's advertisement of itself (RFC 4861, section 4.2): hosts take addresses and a way out from it.
    RouterAdvertisement,
    /// A fragment of IPv6 that begins with none of TCP, UDP and ICMP, but with a header that may have one of them behind it
    /// (RFC 8200, section 4.5). In a first fragment that ends before it there is no port to match.
    HiddenTransport,
    /// A claim to have this address, in ARP (RFC 826) or in an advertisement of a neighbor (RFC 4861, section 4.4).
    Claim(IpAddr),
    /// The destination is an address of this machine.
    ToSelf,
    /// The destination is no address of this machine.
    NotToSelf,
    Tcp,
    Udp,
    /// The first packet of a connection.
    Syn,
    /// Not the first packet of a connection.
    NotSyn,
    /// The answer of a listener to the first packet of a connection.
    SynAck,
    DestPort(u16),
    /// At most `PORTS_PER_RULE`.
    DestPorts(Vec<u16>),
    NotDestPorts(Vec<u16>),
    SourcePort(u16),
    /// At most `PORTS_PER_RULE`.
    SourcePorts(Vec<u16>),
    NotSourcePorts(RangeInclusive<u16>),
    /// The source is an address of this machine.
    FromSelf,
    /// Of a socket that a program has.
    Owned,
    Uid(u32),
    NotUid(u32),
    /// By number, or by name.
    Gid(String),
    NotGid(String),
    Invalid,
    /// The first packet that conntrack sees of a connection, whatever it is to TCP.
    New,
    /// Against the direction of the first packet that conntrack saw.
    Reply,
    /// Of a connection whose destination was translated.
    Dnat,
    /// Of a connection whose first packet was sent to another port.
    NotOriginalDestPort(u16),
}

impl Match {
    /// A match of what is sent to `range`; none for all addresses, which iptables takes as a match and doesn't list.
    pub(super) fn destination(range: IpNet) -> Option<Self> {
        (range.prefix_len() > 0).then_some(Self::Dest(range))
    }
}

/// Ports that one match of iptables holds (xt_multiport.h, XT_MULTI_PORTS).
pub(super) const PORTS_PER_RULE: usize = 15;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Return,
    Drop,
    Jump(Chain),
    /// To a port of this machine.
    Redirect(u16),
    /// Conntrack zone.
    Zone(u16),
}

/// The network of an address; the address where there is no such prefix.
pub(super) fn network(ip: IpAddr, prefix: u8) -> IpNet {
    IpNet::new(ip, prefix).unwrap_or_else(|_| ip.into()).trunc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_of_any_of_its_addresses() {
        for (ip, prefix, expected) in [
            ("172.17.0.1", 16, "172.17.0.0/16"),
            ("10.1.2.3", 0, "0.0.0.0/0"),
            ("10.1.2.3", 32, "10.1.2.3/32"),
            ("10.1.2.3", 64, "10.1.2.3/32"),
            ("fd00:d::1", 64, "fd00:d::/64"),
            ("fd00:d::1", 0, "::/0"),
            ("fd00:d::1", 128, "fd00:d::1/128"),
        ] {
            assert_eq!(
                network(ip.parse().unwrap(), prefix),
                expected.parse().unwrap(),
                "{ip}/{prefix}"
            );
        }
    }
}
