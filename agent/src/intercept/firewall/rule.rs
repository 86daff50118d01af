//! Rules of a firewall as both of its programs mean them, and what becomes of a call that comes to them.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::Hook;
use crate::config::ports;
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
    /// Whether the protocol may be TCP, and may be UDP.
    Protocol {
        tcp: bool,
        udp: bool,
    },
    /// Whether it is so on lo, and on every other interface. `None`: on some, for a call may come by any.
    Interface {
        on_lo: Option<bool>,
        elsewhere: Option<bool>,
    },
    /// Among the states of conntrack is that of a first packet, or not.
    New(bool),
    /// Another address or port than it was sent to.
    Redirected,
    /// To this VM itself.
    Local,
    /// To the address of lo, which a call from outside never has: it is redirected to that of its interface.
    ToLoopback,
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
    /// Keeps it from conntrack.
    Untrack,
}

/// Every port.
pub(super) const ANY: RangeInclusive<u16> = 0..=u16::MAX;

/// The first packet of a connection, or any of DNS, from and to one of these ports.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) hook: Hook,
    pub(super) udp: bool,
    pub(super) from: RangeInclusive<u16>,
    pub(super) to: RangeInclusive<u16>,
}

impl Call {
    /// By TCP.
    pub(super) fn to(hook: Hook, port: u16) -> Self {
        Self {
            hook,
            udp: false,
            from: ANY,
            to: port..=port,
        }
    }

    fn is_redirected(&self) -> bool {
        let port = self.to.start();
        match self.hook {
            Hook::Input => [ports::INBOUND, ports::OUTBOUND].contains(port),
            Hook::LoopbackInput => [ports::OUTBOUND, ports::DNS].contains(port),
            Hook::Output => true,
            Hook::LoopbackOutput => false,
        }
    }
}

impl Condition {
    /// The interface is one of these, or none of them; what is no name, or that of a set, may be any.
    pub(super) fn interface(names: &[&str], is_among: bool) -> Self {
        let is_known = !names.is_empty() && names.iter().all(|name| !name.starts_with('@'));
        Self::Interface {
            on_lo: is_known.then_some(names.contains(&LO) == is_among),
            elsewhere: (names == [LO]).then_some(!is_among),
        }
    }

    /// The protocol is one of these, or none of them.
    pub(super) fn protocol(names: &[&str], is_among: bool) -> Self {
        Self::Protocol {
            tcp: names.contains(&"tcp") == is_among,
            udp: names.contains(&"udp") == is_among,
        }
    }

    /// The destination is this address, or in the network that begins with it.
    pub(super) fn to(address: &str) -> Self {
        match address {
            "127.0.0.0" | "127.0.0.1" | "::1" => Self::ToLoopback,
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
            Self::Interface { on_lo, .. } if call.hook.is_loopback() => *on_lo,
            Self::Interface { elsewhere, .. } => *elsewhere,
            Self::Redirected => Some(call.is_redirected()),
            Self::Local => Some(true),
            Self::ToLoopback => Some(call.hook != Hook::Input),
            Self::Unknown => None,
        }
    }

    /// True for one that is about such calls, so that a rule with it is meant for them.
    fn names(&self) -> bool {
        matches!(self, Self::Ports(_, true) | Self::Redirected)
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

    fn holds(&self, call: &Call) -> bool {
        self.conditions.iter().all(|it| it.holds(call) == Some(true))
    }

    /// True for one that is meant for such calls, or for all that come by some interface.
    fn accepts(&self, call: &Call) -> bool {
        let by_some = |it: &Condition| matches!(it, Condition::Interface { .. });
        self.conditions.iter().any(Condition::names)
            || self
                .conditions
                .iter()
                .all(|it| it.holds(call).unwrap_or_else(|| by_some(it)))
    }
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

    fn rule(chain: &str, conditions: &[Condition], verdict: Verdict) -> Rule {
        Rule {
            chain: chain.to_owned(),
            conditions: conditions.to_vec(),
            verdict,
        }
    }

    #[test]
    fn first_rule_that_is_for_a_call_decides() {
        let call = Call::to(Hook::Input, ports::INBOUND);
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
                vec![drop(&[Condition::interface(&[LO], false), Condition::to("127.0.0.0")])],
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
                let call = Call::to(hook, 15001);
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
    fn chain_is_judged_once_however_many_ways_lead_there() {
        let call = Call::to(Hook::Input, ports::INBOUND);
        let jump = |from: u32| rule(&from.to_string(), &[], Verdict::Jump((from + 1).to_string()));
        let mut rules: Vec<Rule> = (0..64).flat_map(|from| [jump(from), jump(from)]).collect();
        assert_eq!(passes(&rules, "0", &call), None);
        rules.push(rule("64", &[], Verdict::Drop));
        assert_eq!(passes(&rules, "0", &call), Some(false));
    }
}
