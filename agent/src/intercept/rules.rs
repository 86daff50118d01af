//! Netfilter rules as values, in netfilter's and Istio's terms. Pure: what is to be, not how it gets there.
//!
//! One model for both backends and both families. Chains are Istio's, so that who knows them finds them.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::str::FromStr;

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

    /// Whether nothing is to be redirected.
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
    /// What a bridge passes from one of its ports to another; IP's tables see none of it. Only nftables has it.
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
    /// What arrives at this VM.
    IstioInbound,
    /// What this VM sends.
    IstioOutput,
    /// DNS that this VM sends.
    IstioOutputDns,
    /// What a container behind a bridge sends. Not in Istio.
    IstioContainer,
    /// What is forwarded to a container behind a bridge. Not in Istio.
    IstioForward,
    /// What users of this VM send to the application. Not in Istio.
    IstioLocal,
    /// What Envoy asks the cloud's metadata server. Not in Istio.
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
    Source(Net),
    Dest(Net),
    NotDest(Net),
    /// Tagged twice with VLAN 0, which says nothing and hides from the bridge what the receiver then reads.
    NestedTag,
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

/// What one match of iptables holds (xt_multiport.h, XT_MULTI_PORTS).
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

/// An address range, as written.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Net {
    pub(super) ip: IpAddr,
    prefix: u8,
}

impl Net {
    /// Every address of a family.
    pub(super) const ALL_V4: Self = Self {
        ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        prefix: 0,
    };
    /// Every address of a family.
    pub(super) const ALL_V6: Self = Self {
        ip: IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        prefix: 0,
    };

    /// The network of an address, `ip/prefix`, or the address where there is no such prefix.
    pub(super) fn network(ip: IpAddr, prefix: u8) -> Self {
        let whole = Self::from(ip);
        let prefix = prefix.min(whole.prefix);
        let ip = match ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or_default();
                Ipv4Addr::from_bits(ip.to_bits() & mask).into()
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or_default();
                Ipv6Addr::from_bits(ip.to_bits() & mask).into()
            }
        };
        Self { ip, prefix }
    }

    /// What a packet to it matches; iptables takes a match of all addresses, and lists none.
    pub(super) fn as_destination(self) -> Vec<Match> {
        if self.prefix == 0 {
            Vec::new()
        } else {
            vec![Match::Dest(self)]
        }
    }

    pub(super) fn family(&self) -> Family {
        if self.ip.is_ipv4() { Family::V4 } else { Family::V6 }
    }
}

impl From<IpAddr> for Net {
    fn from(ip: IpAddr) -> Self {
        Self {
            ip,
            prefix: if ip.is_ipv4() { 32 } else { 128 },
        }
    }
}

impl FromStr for Net {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address range such as 10.0.0.0/8");
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse().map_err(|_| wrong())?;
        if prefix > Self::from(ip).prefix {
            return Err(wrong());
        }
        Ok(Self { ip, prefix })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_of_any_of_its_addresses() {
        for (ip, prefix, network) in [
            ("172.17.0.1", 16, "172.17.0.0/16"),
            ("10.1.2.3", 0, "0.0.0.0/0"),
            ("10.1.2.3", 32, "10.1.2.3/32"),
            ("10.1.2.3", 64, "10.1.2.3/32"),
            ("fd00:d::1", 64, "fd00:d::/64"),
            ("fd00:d::1", 0, "::/0"),
            ("fd00:d::1", 128, "fd00:d::1/128"),
        ] {
            let made = Net::network(ip.parse().unwrap(), prefix);
            assert_eq!(made, network.parse().unwrap(), "{ip}/{prefix}");
        }
    }
}
