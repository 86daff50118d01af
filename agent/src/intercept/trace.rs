//! The way of a call through the rules, told without a packet. Pure, but for [`trace`].

use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::rules::{Chain, Family, LO, Match, Rule, Ruleset, Table, Verdict};
use super::{Directions, Options, change_for, nftables, packets};
use crate::facts::{Membership, RulePackets};
use crate::host::change::HostChange;

/// Longest way through the chains: each of ours jumps to one that jumps no further.
const MAX_JUMPS: usize = 8;

/// The first packet of a call.
#[derive(Clone, Debug)]
pub struct Call {
    /// True for a call to this VM, false for one of a program on it.
    pub inbound: bool,
    /// UDP, else TCP.
    pub udp: bool,
    /// The caller's address, where it is known.
    pub source: Option<IpAddr>,
    /// The address and port that the caller means.
    pub destination: SocketAddr,
    /// The interface that it comes or leaves by, where it is known.
    pub interface: Option<String>,
    /// User and group of the calling program, by number; `None` is one that no rule knows.
    pub owner: Option<(u32, u32)>,
}

/// The end of a call's way through the rules.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Trace {
    /// The port of this machine that the call is sent to; `None` where it goes its way.
    pub redirected: Option<u16>,
    /// Reason of the rule that let the call go its way; `None` where no rule did, or for none of these reasons.
    pub exception: Option<Exception>,
    /// The rules that it matched, in order; the last one decided.
    pub rules: Vec<String>,
}

/// Kind of an exception from redirection.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Exception {
    /// By the address that is called.
    Address,
    /// By the address that is called, which is this VM's own: the call leaves by lo.
    Own,
    /// By the port that is called.
    Port,
    /// By the calling program's user or group.
    Owner,
    /// By the interface.
    Interface,
}

impl Exception {
    fn of(rule: &Rule) -> Option<Self> {
        let kinds = rule.matches.iter().filter_map(|it| match it {
            Match::Uid(_) | Match::NotUid(_) | Match::Gid(_) | Match::NotGid(_) => Some(Self::Owner),
            Match::Out(nic) if nic == LO => Some(Self::Own),
            Match::Dest(_) => Some(Self::Address),
            Match::DestPort(_) | Match::DestPorts(_) => Some(Self::Port),
            Match::In(nic) | Match::Out(nic) if nic != LO => Some(Self::Interface),
            _ => None,
        });
        kinds.min_by_key(|kind| match kind {
            // A rule for lo names owners to leave some of them out.
            Self::Own => 0,
            Self::Owner => 1,
            Self::Address => 2,
            Self::Port => 3,
            Self::Interface => 4,
        })
    }
}

/// The rules that are wanted, the kernel's difference from them, and the ways of calls through them.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct Rules {
    /// `nftables`, `iptables` or `none`.
    pub backend: String,
    /// True when rules of ours are in the kernel, these or others.
    #[serde(default)]
    pub any_in: bool,
    /// Lines of the difference between the kernel's rules and those wanted; none where they agree.
    pub difference: Vec<String>,
    /// The way of each call, in the order in which they were asked about.
    pub traces: Vec<Trace>,
}

impl Rules {
    /// True when rules are wanted and none is in.
    pub fn are_out(&self) -> bool {
        !self.difference.is_empty() && !self.any_in
    }
}

/// Compares the kernel's rules with those of the membership, and follows calls through the latter; blocks.
///
/// # Errors
/// When resolv.conf or the kernel's rules can't be read, or no backend works.
pub fn trace(membership: &Membership, options: &Options, calls: &[Call]) -> Result<Rules> {
    let change = change_for(membership, options, Directions::BOTH)?;
    let difference = HostChange::plan(&change, &options.host)?.unwrap_or_default();
    // The kernel's rules are told by their places, which are those of the rules wanted where nothing differs.
    let packets = match difference.is_empty() {
        true => packets(&options.host, change.carrier.name())?,
        false => Vec::new(),
    };
    let changed = |line: &&str| line.starts_with(['+', '-']) && !line.starts_with("+++") && !line.starts_with("---");
    Ok(Rules {
        backend: change.carrier.name().to_owned(),
        any_in: super::installed(&options.host)?.is_some(),
        difference: difference.lines().filter(changed).map(str::to_owned).collect(),
        traces: calls
            .iter()
            .map(|call| follow(&change.ruleset, &packets, call))
            .collect(),
    })
}

fn follow(ruleset: &Ruleset, packets: &[RulePackets], call: &Call) -> Trace {
    let mut trace = Trace {
        redirected: None,
        exception: None,
        rules: Vec::new(),
    };
    let hook = match call.inbound {
        true => Chain::Prerouting,
        false => Chain::Output,
    };
    walk(ruleset, packets, call, hook, &mut trace, MAX_JUMPS);
    trace
}

/// Follows one chain; true when a rule has decided for good.
fn walk(
    ruleset: &Ruleset,
    packets: &[RulePackets],
    call: &Call,
    chain: Chain,
    trace: &mut Trace,
    jumps: usize,
) -> bool {
    // iptables has the rules of each family in a table of its own, nftables those of both in one.
    let family = Family::of(call.destination.ip());
    let by_family = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    let is_by_family = packets.iter().any(|it| it.family == by_family);
    let table = if is_by_family { by_family } else { "inet" };
    let is_listed = |rule: &&Rule| !is_by_family || rule.is_for(family);
    let of_it = |it: &&RulePackets| it.family == table && it.chain.eq_ignore_ascii_case(chain.name());
    let mut counted = packets.iter().filter(of_it);
    for (rule, counted) in of_chain(ruleset, chain)
        .filter(is_listed)
        .map(|rule| (rule, counted.next()))
    {
        if !holds(rule, call) {
            continue;
        }
        let counted = counted.map(|RulePackets { packets, .. }| {
            let s = if *packets == 1 { "" } else { "s" };
            format!(", {packets} packet{s} so far")
        });
        let text = nftables::text(rule);
        trace
            .rules
            .push(format!("{}: {text}{}", chain.name(), counted.unwrap_or_default()));
        match rule.verdict {
            Verdict::Redirect(port) => {
                (trace.redirected, trace.exception) = (Some(port), None);
                return true;
            }
            Verdict::Drop => return true,
            Verdict::Return => {
                trace.exception = Exception::of(rule);
                return false;
            }
            Verdict::Jump(next) if jumps > 0 => {
                if walk(ruleset, packets, call, next, trace, jumps - 1) {
                    return true;
                }
            }
            Verdict::Jump(_) | Verdict::Zone(_) => {}
        }
    }
    false
}

/// The rules of a chain of NAT's as the kernel has them: those that come first were added last.
fn of_chain(ruleset: &Ruleset, chain: Chain) -> impl Iterator<Item = &Rule> {
    let of_it = move |rule: &&Rule| rule.table == Table::Nat && rule.chain == chain;
    let first = ruleset.rules.iter().rev().filter(of_it).filter(|rule| rule.first);
    let others = ruleset.rules.iter().filter(of_it).filter(|rule| !rule.first);
    first.chain(others)
}

fn holds(rule: &Rule, call: &Call) -> bool {
    rule.is_for(Family::of(call.destination.ip())) && rule.matches.iter().all(|it| matches(it, call))
}

fn matches(it: &Match, call: &Call) -> bool {
    let (address, port) = (call.destination.ip(), call.destination.port());
    let by = |nic: &String| match &call.interface {
        Some(interface) => interface == nic,
        None => nic == LO && address.is_loopback(),
    };
    match it {
        Match::In(nic) => call.inbound && by(nic),
        Match::NotIn(nic) => call.inbound && !by(nic),
        Match::Out(nic) => !call.inbound && by(nic),
        Match::NotOut(nic) => !call.inbound && !by(nic),
        Match::Source(net) => call.source.is_some_and(|source| net.contains(&source)),
        Match::Dest(net) => net.contains(&address),
        Match::NotDest(net) => !net.contains(&address),
        Match::ToSelf => call.inbound || address.is_loopback() || by(&LO.to_owned()),
        Match::NotToSelf => !call.inbound && !address.is_loopback() && !by(&LO.to_owned()),
        Match::Tcp => !call.udp,
        Match::Udp => call.udp,
        Match::Syn => !call.udp,
        Match::DestPort(wanted) => port == *wanted,
        Match::DestPorts(wanted) => wanted.contains(&port),
        Match::NotDestPorts(wanted) => !wanted.contains(&port),
        Match::FromSelf | Match::Owned => !call.inbound,
        Match::Uid(uid) => call.owner.is_some_and(|(user, _)| user == *uid),
        Match::NotUid(uid) => !call.inbound && call.owner.is_none_or(|(user, _)| user != *uid),
        Match::Gid(gid) => call.owner.is_some_and(|(_, group)| group.to_string() == *gid),
        Match::NotGid(gid) => !call.inbound && call.owner.is_none_or(|(_, group)| group.to_string() != *gid),
        Match::New => true,
        // A first packet is none of these, and its port is one that the kernel chose.
        Match::NotSyn
        | Match::SynAck
        | Match::SourcePort(_)
        | Match::SourcePorts(_)
        | Match::NotSourcePorts(_)
        | Match::Invalid
        | Match::Reply
        | Match::Dnat
        | Match::NestedTag
        | Match::RouterAdvertisement
        | Match::HiddenTransport
        | Match::Claim(_) => false,
        Match::NotOriginalDestPort(other) => port != *other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ports;
    use crate::intercept::capture::{Capture, Select};

    fn capture() -> Capture {
        Capture {
            inbound_ports_include: Select::Only(vec![3550]),
            outbound_ip_ranges_include: Select::All,
            outbound_ip_ranges_exclude: vec!["10.9.0.0/16".parse().unwrap()],
            outbound_ports_exclude: vec![9443],
            exclude_interfaces: vec!["eth9".to_owned()],
            dns_servers: vec!["10.0.0.2".parse().unwrap()],
            ..Capture::default()
        }
    }

    fn call(destination: &str) -> Call {
        Call {
            inbound: false,
            udp: false,
            source: None,
            destination: destination.parse().unwrap(),
            interface: Some("eth0".to_owned()),
            owner: None,
        }
    }

    #[test]
    fn call_of_a_program_goes_to_envoy_unless_a_rule_says_otherwise() {
        let rules = capture().rules();
        let envoy = (ports::PROXY_UID, ports::PROXY_GID);
        let of = |owner| Call {
            owner,
            ..call("10.96.0.1:7070")
        };
        let by = |interface: &str| Call {
            interface: Some(interface.to_owned()),
            ..call("10.96.0.1:7070")
        };
        for (call, redirected, exception, last) in [
            (
                call("10.96.0.1:7070"),
                Some(ports::OUTBOUND),
                None,
                "redirect to :15001",
            ),
            (
                call("10.9.1.1:7070"),
                None,
                Some(Exception::Address),
                "ip daddr 10.9.0.0/16 return",
            ),
            (
                call("10.96.0.1:9443"),
                None,
                Some(Exception::Port),
                "tcp dport 9443 return",
            ),
            (call("127.0.0.1:7070"), None, None, "ip daddr 127.0.0.1 return"),
            (of(Some(envoy)), None, Some(Exception::Owner), "meta skuid 1337 return"),
            (
                of(Some((1000, 1000))),
                Some(ports::OUTBOUND),
                None,
                "redirect to :15001",
            ),
            (by("eth9"), None, Some(Exception::Interface), "oifname \"eth9\" return"),
            (by(LO), None, Some(Exception::Own), "meta skuid != 1337 return"),
        ] {
            let trace = follow(&rules, &[], &call);
            assert_eq!(trace.redirected, redirected, "{call:?}: {trace:?}");
            if !call.destination.ip().is_loopback() {
                assert_eq!(trace.exception, exception, "{call:?}: {trace:?}");
                assert!(trace.rules.last().unwrap().contains(last), "{call:?}: {trace:?}");
            }
        }
    }

    #[test]
    fn call_to_this_vm_goes_to_envoy_where_its_port_is_captured() {
        let rules = capture().rules();
        let to = |port| Call {
            inbound: true,
            source: Some("10.0.0.9".parse().unwrap()),
            ..call(&format!("10.0.0.1:{port}"))
        };
        assert_eq!(follow(&rules, &[], &to(3550)).redirected, Some(ports::INBOUND));
        assert_eq!(follow(&rules, &[], &to(3551)).redirected, None);
        assert_eq!(follow(&rules, &[], &to(22)).redirected, None);
    }

    #[test]
    fn rules_on_the_way_are_told_with_their_packets() {
        let rules = capture().rules();
        let of_chain = of_chain(&rules, Chain::IstioRedirect).count();
        let packets = |number: usize| RulePackets {
            family: "inet".to_owned(),
            chain: "istio_redirect".to_owned(),
            rule: String::new(),
            packets: 40 + number as u64,
        };
        let mut packets: Vec<_> = (0..of_chain).map(packets).collect();
        let trace = follow(&rules, &packets, &call("10.96.0.1:7070"));
        let last = trace.rules.last().unwrap();
        assert!(last.ends_with("redirect to :15001, 40 packets so far"), "{last}");
        packets[0].packets = 1;
        let last = follow(&rules, &packets, &call("10.96.0.1:7070")).rules.pop().unwrap();
        assert!(last.ends_with(", 1 packet so far"), "{last}");
        assert!(!trace.rules[0].contains("packets"), "{trace:?}");
    }

    #[test]
    fn rules_of_iptables_are_counted_in_the_call_s_family() {
        let rules = capture().rules();
        let of_family = |family: &str, first: u64| {
            let is_v4 = |rule: &&Rule| rule.is_for(Family::V4);
            let of_it = of_chain(&rules, Chain::IstioOutput).filter(|rule| family == "ip6" || is_v4(rule));
            let packets = of_it.zip(first..).map(|(_, packets)| RulePackets {
                family: family.to_owned(),
                chain: "ISTIO_OUTPUT".to_owned(),
                rule: String::new(),
                packets,
            });
            packets.collect::<Vec<_>>()
        };
        let of_v4 = of_family("ip", 100);
        let last = of_v4.len() as u64 + 99;
        let packets = [of_v4, of_family("ip6", 1000)].concat();
        let trace = follow(&rules, &packets, &call("10.96.0.1:7070"));
        let jump = format!("ISTIO_OUTPUT: jump istio_redirect, {last} packets so far");
        assert!(trace.rules.contains(&jump), "{jump}: {trace:?}");
    }

    #[test]
    fn query_goes_to_the_agent_where_its_server_is_captured() {
        let rules = capture().rules();
        let to = |server: &str| Call {
            udp: true,
            ..call(server)
        };
        assert_eq!(follow(&rules, &[], &to("10.0.0.2:53")).redirected, Some(ports::DNS));
        assert_eq!(follow(&rules, &[], &to("10.0.0.3:53")).redirected, None);
    }
}
