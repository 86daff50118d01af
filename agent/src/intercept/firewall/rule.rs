//! Rules of a firewall as both of its programs mean them, and what becomes of a call that comes to them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Hook;
use crate::intercept::rules::LO;

/// One rule. What can't be read of it is a condition that is not known to hold.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rule {
    pub(super) chain: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) verdict: Verdict,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Condition {
    /// To one of these ports, or to none of them.
    Ports(Vec<RangeInclusive<u16>>, bool),
    /// From one of these ports, or from none of them.
    SourcePorts(Vec<RangeInclusive<u16>>, bool),
    /// The protocol: true for TCP, and for UDP, when it may be that.
    Protocol {
        tcp: bool,
        udp: bool,
    },
    /// By one of these interfaces, or by none of them.
    Interface(Vec<String>, bool),
    /// From this network, or one of a list.
    From(String),
    /// Among the states of conntrack is that of a first packet, or not.
    New(bool),
    /// Another address or port than it was sent to.
    Redirected,
    /// To this VM itself.
    Local,
    /// To the address of lo, or to another. A call from outside never has the former: it is redirected to that of its interface.
    ToLoopback(bool),
    /// The sender's user or group: true when Envoy's are among them.
    Owner(bool),
    Unknown,
}

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    Accept,
    Drop,
    /// To a chain, and back from there.
    Jump(String),
    /// To a chain, and not back.
    Goto(String),
    Return,
    /// Sends it elsewhere.
    Rewrite,
    /// Keeps it from conntrack, or puts it into a zone of it, where it is another connection than its answers are of.
    Untrack,
}

/// The first port that a program without privileges may have (ip(7)).
const UNPRIVILEGED: u16 = 1024;
/// Ports that Istio has for itself (Istio's documentation, "Ports used by Istio").
const ISTIOS: RangeInclusive<u16> = 15000..=15090;
/// Every port.
pub(super) const ANY: RangeInclusive<u16> = 0..=u16::MAX;

/// The first packet of a connection, or any of DNS, from and to one of these ports.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) hook: Hook,
    pub(super) udp: bool,
    pub(super) from: RangeInclusive<u16>,
    pub(super) to: RangeInclusive<u16>,
    /// The interface that it comes by; `None`: any but lo.
    pub(super) by: Option<String>,
    /// True for one to another address or port than it was sent to.
    pub(super) is_redirected: bool,
    /// True for one from whatever network a rule names.
    pub(super) is_of_named: bool,
}

impl Condition {
    /// The interface is one of these, or none of them; what is no name, or that of a set, may be any.
    pub(super) fn interface(names: &[&str], is_among: bool) -> Self {
        Self::Interface(names.iter().map(|name| (*name).to_owned()).collect(), is_among)
    }

    /// The protocol is one of these, or none of them.
    pub(super) fn protocol(names: &[&str], is_among: bool) -> Self {
        Self::Protocol {
            tcp: names.contains(&"tcp") == is_among,
            udp: names.contains(&"udp") == is_among,
        }
    }

    /// The destination is this address, or in the network that begins with it, or is not.
    pub(super) fn to(address: &str, is_equal: bool) -> Self {
        match address {
            "127.0.0.0" | "127.0.0.1" | "::1" => Self::ToLoopback(is_equal),
            _ => Self::Unknown,
        }
    }

    /// `None`: not known.
    fn holds(&self, call: &Call) -> Option<bool> {
        match self {
            Self::Ports(ranges, wanted) => is_among(&call.to, ranges).map(|is_among| is_among == *wanted),
            Self::SourcePorts(ranges, wanted) => is_among(&call.from, ranges).map(|is_among| is_among == *wanted),
            Self::Protocol { tcp, udp } => Some(if call.udp { *udp } else { *tcp }),
            Self::New(holds) => Some(*holds),
            Self::Interface(names, wanted) => is_by(names, call).map(|is_by| is_by == *wanted),
            Self::Redirected => Some(call.is_redirected),
            Self::Local => Some(!call.hook.leaves()),
            Self::ToLoopback(wanted) => Some((call.hook == Hook::Input || call.hook.leaves()) != *wanted),
            Self::Owner(is_envoys) => (call.hook == Hook::Envoy).then_some(*is_envoys),
            Self::From(_) | Self::Unknown => None,
        }
    }

    /// True for one that is about such calls, so that a rule with it is meant for them.
    fn names(&self) -> bool {
        matches!(self, Self::Ports(_, true) | Self::Redirected)
    }
}

/// True where pods may have some of these ports: below are those of root's programs, and some are istiod's and Envoy's own.
fn is_of_pods(range: &RangeInclusive<u16>) -> bool {
    *range.end() >= UNPRIVILEGED && !(ISTIOS.contains(range.start()) && ISTIOS.contains(range.end()))
}

/// `None`: on a VM with several interfaces, by which calls come is not known.
fn is_by(names: &[String], call: &Call) -> Option<bool> {
    let is_known = !names.is_empty() && names.iter().all(|name| !name.starts_with('@'));
    let by = |interface: &str| is_known.then(|| names.iter().any(|name| is_interface(name, interface)));
    match &call.by {
        _ if call.hook.is_loopback() => by(LO),
        Some(interface) => by(interface),
        None => (*names == [LO]).then_some(false),
    }
}

/// Interfaces that begin alike have one name, to nft(8) with a `*` at its end, and to iptables(8) with a `+`.
fn is_interface(name: &str, interface: &str) -> bool {
    match name.strip_suffix(['*', '+']) {
        Some(begin) => interface.starts_with(begin),
        None => name == interface,
    }
}

/// `None` where some of the ports are and some are not.
fn is_among(ports: &RangeInclusive<u16>, ranges: &[RangeInclusive<u16>]) -> Option<bool> {
    let meets = |range: &RangeInclusive<u16>| range.start() <= ports.end() && ports.start() <= range.end();
    let covers = |range: &RangeInclusive<u16>| range.contains(ports.start()) && range.contains(ports.end());
    match ranges.iter().any(covers) {
        true => Some(true),
        false => (!ranges.iter().any(meets)).then_some(false),
    }
}

impl Rule {
    pub(super) fn may_hold(&self, call: &Call) -> bool {
        self.conditions.iter().all(|it| it.holds(call) != Some(false))
    }

    pub(super) fn holds(&self, call: &Call) -> bool {
        self.conditions.iter().all(|it| it.holds(call) == Some(true))
    }

    /// True for one that holds for such calls to some port, or by some interface.
    pub(super) fn takes_some(&self, call: &Call) -> bool {
        let is_for_some = |it: &Condition| matches!(it, Condition::Ports(..) | Condition::Interface(..));
        let mut conditions = self.conditions.iter();
        conditions.all(|it| it.holds(call).unwrap_or_else(|| is_for_some(it)))
    }

    /// True for one that is meant for such calls, or for all that come by some interface. Where Envoy and the agent call is not
    /// known, and one that may accept them does; but none for ports alone that no pod has.
    fn accepts(&self, call: &Call) -> bool {
        let is_of_some = |it: &Condition| match it {
            Condition::Ports(ranges, true) if call.hook == Hook::Envoy => ranges.iter().any(is_of_pods),
            _ if call.hook.leaves() => true,
            Condition::Interface(..) => true,
            Condition::From(_) => call.is_of_named,
            _ => false,
        };
        !call.hook.leaves() && self.conditions.iter().any(Condition::names)
            || self
                .conditions
                .iter()
                .all(|it| it.holds(call).unwrap_or_else(|| is_of_some(it)))
    }
}

/// The networks that rules accept such a call from, and from nowhere else.
pub(super) fn networks<'a>(rules: &'a [Rule], call: &'a Call) -> impl Iterator<Item = &'a str> {
    let accepting = rules
        .iter()
        .filter(|rule| rule.verdict == Verdict::Accept && rule.may_hold(call) && rule.accepts(call));
    accepting
        .flat_map(|rule| rule.conditions.iter())
        .filter_map(|it| match it {
            Condition::From(network) => Some(network.as_str()),
            _ => None,
        })
}

/// True when `chain` is seen to let a call pass, false when it is seen to drop it; `None`: its policy decides. A rule that
/// accepts such calls from somewhere counts as one that accepts them, one that drops some is none that drops them.
pub(super) fn passes(rules: &[Rule], chain: &str, call: &Call) -> Option<bool> {
    passes_from(rules, chain, call, &mut BTreeMap::new())
}

/// `known` has what was found of chains, each of which many ways may lead to, and nothing of those that lead here.
fn passes_from<'a>(
    rules: &'a [Rule],
    chain: &'a str,
    call: &Call,
    known: &mut BTreeMap<&'a str, Option<bool>>,
) -> Option<bool> {
    if let Some(passed) = known.get(chain) {
        return *passed;
    }
    known.insert(chain, None);
    let mut passed = None;
    for rule in rules.iter().filter(|rule| rule.chain == chain && rule.may_hold(call)) {
        let holds = rule.holds(call);
        passed = match &rule.verdict {
            Verdict::Accept => rule.accepts(call).then_some(true),
            Verdict::Drop => holds.then_some(false),
            Verdict::Jump(next) | Verdict::Goto(next) => {
                passes_from(rules, next, call, known).filter(|passed| *passed || holds)
            }
            Verdict::Return | Verdict::Rewrite | Verdict::Untrack => None,
        };
        if passed.is_some() || holds && matches!(rule.verdict, Verdict::Return | Verdict::Goto(_)) {
            break;
        }
    }
    known.insert(chain, passed);
    passed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ports;

    fn to(hook: Hook, port: u16) -> Call {
        Call {
            hook,
            udp: false,
            from: ANY,
            to: port..=port,
            by: None,
            is_redirected: false,
            is_of_named: false,
        }
    }

    fn rule(chain: &str, conditions: &[Condition], verdict: Verdict) -> Rule {
        Rule {
            chain: chain.to_owned(),
            conditions: conditions.to_vec(),
            verdict,
        }
    }

    #[test]
    fn first_rule_that_is_for_a_call_decides() {
        let call = to(Hook::Input, ports::INBOUND);
        let port = || Condition::Ports(vec![15000..=15010], true);
        let other = || Condition::Ports(vec![15006..=15006], false);
        let accept = || rule("input", &[port()], Verdict::Accept);
        let drop = |conditions: &[Condition]| rule("input", conditions, Verdict::Drop);
        let jump = |conditions: &[Condition]| rule("input", conditions, Verdict::Jump("sub".to_owned()));
        let returns = |conditions: &[Condition]| rule("sub", conditions, Verdict::Return);
        let end = || rule("sub", &[], Verdict::Drop);
        for (rules, passed) in [
            (vec![drop(&[port()]), accept()], Some(false)),
            (vec![accept(), drop(&[port()])], Some(true)),
            (vec![drop(&[port(), Condition::Unknown])], None),
            (
                vec![drop(&[other()]), drop(&[Condition::protocol(&["tcp"], false)])],
                None,
            ),
            (vec![drop(&[Condition::interface(&[LO], true)])], None),
            (vec![drop(&[Condition::interface(&[LO], false)])], Some(false)),
            (
                vec![drop(&[
                    Condition::interface(&[LO], false),
                    Condition::to("127.0.0.0", true),
                ])],
                None,
            ),
            (vec![jump(&[]), end()], Some(false)),
            (vec![jump(&[Condition::Unknown]), end()], None),
            (
                vec![jump(&[]), returns(&[Condition::Local]), end(), accept()],
                Some(true),
            ),
            (vec![jump(&[]), returns(&[Condition::Unknown]), end()], Some(false)),
            (vec![jump(&[]), rule("sub", &[], Verdict::Jump("sub".to_owned()))], None),
            (
                vec![rule("input", &[], Verdict::Goto("sub".to_owned())), drop(&[])],
                None,
            ),
        ] {
            assert_eq!(passes(&rules, "input", &call), passed, "{rules:?}");
        }
    }

    /// On a VM with two of them, by which calls come is not known.
    #[test]
    fn rule_for_some_interfaces_accepts_and_does_not_drop() {
        for (names, is_among, on_lo, elsewhere) in [
            (vec!["lo"], true, Some(true), Some(false)),
            (vec!["lo"], false, Some(false), Some(true)),
            (vec!["eth1"], true, Some(false), None),
            (vec!["eth1"], false, Some(true), None),
            (vec!["lo", "eth0"], true, Some(true), None),
            (vec!["lo", "eth0"], false, Some(false), None),
            (vec!["@wan"], true, None, None),
            (vec![], true, None, None),
        ] {
            for (hook, holds) in [(Hook::Input, elsewhere), (Hook::LoopbackOutput, on_lo)] {
                let call = to(hook, 15001);
                let passed = |verdict, more: &[Condition]| {
                    let interface = Condition::interface(&names, is_among);
                    let rules = [rule("c", &[&[interface], more].concat(), verdict)];
                    passes(&rules, "c", &call)
                };
                let accepts = holds != Some(false);
                assert_eq!(
                    passed(Verdict::Accept, &[]),
                    accepts.then_some(true),
                    "{names:?}, {hook:?}"
                );
                let drops = holds == Some(true);
                assert_eq!(
                    passed(Verdict::Drop, &[]),
                    drops.then_some(false),
                    "{names:?}, {hook:?}"
                );
                assert_eq!(
                    passed(Verdict::Accept, &[Condition::Unknown]),
                    None,
                    "{names:?}, {hook:?}"
                );
            }
        }
    }

    #[test]
    fn rule_for_one_interface_is_none_for_what_comes_by_another() {
        let by = |interface: &str| Call {
            by: Some(interface.to_owned()),
            ..to(Hook::Input, 15001)
        };
        for (name, interface, passed) in [
            ("eth0", "docker0", None),
            ("docker0", "docker0", Some(true)),
            ("docker*", "docker0", Some(true)),
            ("br-+", "br-1", Some(true)),
            ("br-+", "docker0", None),
            ("@inside", "docker0", Some(true)),
        ] {
            let rules = [rule("c", &[Condition::interface(&[name], true)], Verdict::Accept)];
            assert_eq!(passes(&rules, "c", &by(interface)), passed, "{name}, {interface}");
        }
        let others = [rule("c", &[Condition::interface(&["eth0"], false)], Verdict::Drop)];
        assert_eq!(passes(&others, "c", &by("docker0")), Some(false));
    }

    #[test]
    fn rule_for_a_network_accepts_what_is_from_there_alone() {
        let from = || Condition::From("10.0.0.0/8".to_owned());
        let rules = [rule("c", &[from()], Verdict::Accept)];
        let call = to(Hook::Input, 15006);
        assert_eq!(passes(&rules, "c", &call), None);
        let call = Call {
            is_of_named: true,
            ..call
        };
        assert_eq!(passes(&rules, "c", &call), Some(true));
        assert_eq!(networks(&rules, &call).collect::<Vec<_>>(), ["10.0.0.0/8"]);
        // Who drops some drops not all.
        let rules = [rule("c", &[from()], Verdict::Drop)];
        assert_eq!(passes(&rules, "c", &call), None);
    }

    #[test]
    fn ports_that_no_pod_has_are_no_way_out_for_envoy() {
        let found = |ranges: &[RangeInclusive<u16>], is_among: bool, hook: Hook, port: RangeInclusive<u16>| {
            let rules = [rule(
                "c",
                &[Condition::Ports(ranges.to_vec(), is_among)],
                Verdict::Accept,
            )];
            passes(
                &rules,
                "c",
                &Call {
                    to: port,
                    ..to(hook, 0)
                },
            )
        };
        for (ranges, is_among, passed) in [
            (vec![80..=80, 443..=443], true, None),
            (vec![53..=53, 15012..=15012], true, None),
            (vec![80..=80, 8080..=8080], true, Some(true)),
            (vec![15443..=15443], true, Some(true)),
            (vec![1..=65535], true, Some(true)),
            (vec![25..=25], false, Some(true)),
        ] {
            assert_eq!(found(&ranges, is_among, Hook::Envoy, ANY), passed, "{ranges:?}");
        }
        assert_eq!(found(&[80..=80, 443..=443], true, Hook::Agent, 15012..=15012), None);
        assert_eq!(found(&[15000..=15012], true, Hook::Agent, 15012..=15012), Some(true));
        let of_root = [rule("c", &[Condition::Owner(false)], Verdict::Accept)];
        assert_eq!(passes(&of_root, "c", &to(Hook::Agent, 15012)), Some(true));
    }

    #[test]
    fn chain_is_judged_once_however_many_ways_lead_there() {
        let call = to(Hook::Input, ports::INBOUND);
        let jump = |from: u32| rule(&from.to_string(), &[], Verdict::Jump((from + 1).to_string()));
        let mut rules: Vec<Rule> = (0..64).flat_map(|from| [jump(from), jump(from)]).collect();
        assert_eq!(passes(&rules, "0", &call), None);
        rules.push(rule("64", &[], Verdict::Drop));
        assert_eq!(passes(&rules, "0", &call), Some(false));
    }
}
