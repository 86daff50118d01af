//! Rules of other programs that take a packet before the mesh's rules are asked: ones that rewrite where it goes, and ones
//! that keep it from conntrack, without which nothing is redirected, or give it a zone there of its own. Read only.

use std::ops::RangeInclusive;

use anyhow::Result;
use serde_json::Value;

use super::rule::{ANY, Call, Verdict};
use super::{Hook, iptables, is_met, listed, nft, objects, printed, word};
use crate::config::Backend;
use crate::facts::Membership;
use crate::host::Host;
use crate::intercept::capture::EPHEMERAL_PORTS;
use crate::intercept::iptables::{is_own, legacy_rules};
use crate::intercept::nftables::TABLE;

/// Priorities of the hooks in which calls are redirected: a table of nftables', and iptables' table `nat`.
const NFTABLES: i64 = -105;
const IPTABLES: i64 = -100;
/// The port of DNS.
const DNS: RangeInclusive<u16> = 53..=53;
/// Ports that callers elsewhere call from.
const CALLERS: RangeInclusive<u16> = 1024..=u16::MAX;

/// A rule that is asked first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(in crate::intercept) struct Ahead {
    /// Where it is, and what it does.
    pub(in crate::intercept) rule: String,
    /// The command that takes it out.
    pub(in crate::intercept) fix: String,
}

/// Captured packets, as such rules may meet them.
#[derive(Clone, Copy, Debug)]
pub(in crate::intercept) struct Captured<'a> {
    pub(in crate::intercept) membership: &'a Membership,
    pub(in crate::intercept) backend: Backend,
}

impl Captured<'_> {
    /// Captured packets and their answers, as they come to the chains of a hook.
    fn packets(self, hook: &str) -> Vec<Call> {
        let packet = |hook, udp, from: &RangeInclusive<u16>, to: &RangeInclusive<u16>| Call {
            hook,
            udp,
            from: from.clone(),
            to: to.clone(),
            by: None,
            is_redirected: hook == Hook::Output,
            is_of_named: false,
        };
        let applications = match &self.membership.inbound_ports {
            Some(ports) => ports.iter().map(|port| *port..=*port).collect(),
            None => vec![ANY],
        };
        let dns = self.membership.dns_capture;
        let mut packets = Vec::new();
        // On lo a packet keeps what its own way out has made of it.
        if hook == "prerouting" {
            packets.extend(applications.iter().map(|to| packet(Hook::Input, false, &CALLERS, to)));
            packets.extend(dns.then(|| packet(Hook::Input, true, &DNS, &EPHEMERAL_PORTS)));
            return packets;
        }
        for port in &applications {
            packets.push(packet(Hook::Output, false, port, &CALLERS));
            packets.push(packet(Hook::LoopbackOutput, false, port, &CALLERS));
            packets.push(packet(Hook::LoopbackOutput, false, &CALLERS, port));
        }
        let calls = self.membership.outbound.is_any();
        packets.extend(calls.then(|| packet(Hook::Output, false, &EPHEMERAL_PORTS, &ANY)));
        for hook in [Hook::Output, Hook::LoopbackOutput] {
            packets.extend(dns.then(|| packet(hook, true, &EPHEMERAL_PORTS, &DNS)));
        }
        packets
    }
}

/// Rules that send captured packets elsewhere before they are redirected. Blocks.
///
/// # Errors
/// When a program that is installed doesn't list its rules.
pub(in crate::intercept) fn rewriting(host: &Host, captured: Captured<'_>) -> Result<Vec<Ahead>> {
    let own = match captured.backend {
        Backend::Iptables => IPTABLES,
        Backend::Auto | Backend::Nftables | Backend::None => NFTABLES,
    };
    let is_before =
        |chain: &Value| chain["type"] == "nat" && chain["prio"].as_i64().is_some_and(|priority| priority < own);
    Ok(in_nftables(&listed(host)?, captured, &Verdict::Rewrite, is_before))
}

/// Rules that keep captured packets from conntrack, or from the zone that their answers are in. Blocks.
///
/// # Errors
/// As those of `rewriting`.
pub(in crate::intercept) fn untracking(host: &Host, captured: Captured<'_>) -> Result<Vec<Ahead>> {
    let mut found = in_nftables(&listed(host)?, captured, &Verdict::Untrack, |_| true);
    for program in ["iptables-nft", "ip6tables-nft"] {
        let saved = printed(host, &[&format!("{program}-save")])?;
        found.extend(in_raw(program, &saved.unwrap_or_default(), captured));
    }
    for (program, saved) in legacy_rules(host)? {
        found.extend(in_raw(&program, &saved, captured));
    }
    Ok(found)
}

/// Rules with this verdict in the chains that are meant.
fn in_nftables(
    listing: &Value,
    captured: Captured<'_>,
    verdict: &Verdict,
    is_meant: impl Fn(&Value) -> bool,
) -> Vec<Ahead> {
    let families = captured.membership.families();
    let mut found = Vec::new();
    for chain in objects(listing, "chain").filter(|chain| chain["table"] != TABLE && is_meant(chain)) {
        let hook = word(&chain["hook"]);
        if !["prerouting", "output"].contains(&hook) || !is_met(families, word(&chain["family"])) {
            continue;
        }
        let packets = captured.packets(hook);
        let takes = |listed: &&Value| {
            let mut rules = nft::rules(listed).into_iter().filter(|rule| rule.verdict == *verdict);
            rules.any(|rule| packets.iter().any(|packet| rule.may_hold(packet)))
        };
        let is_of = |rule: &&Value| {
            let same = |key: &str, other: &str| chain[key] == rule[other];
            same("family", "family") && same("table", "table") && same("name", "chain")
        };
        let taking = objects(listing, "rule").filter(is_of).filter(takes);
        found.extend(taking.map(|rule| ahead(chain, rule)));
    }
    found
}

pub(super) fn ahead(chain: &Value, rule: &Value) -> Ahead {
    let [family, table, name] = ["family", "table", "chain"].map(|key| word(&rule[key]));
    let handle = &rule["handle"];
    Ahead {
        rule: format!(
            "rule {handle} of the chain {family} {table} {name} (priority {})",
            chain["prio"]
        ),
        fix: format!("nft delete rule {family} {table} {name} handle {handle}"),
    }
}

/// Rules of iptables' table `raw`, whose target nft(8) says no more of than that it is there.
pub(in crate::intercept) fn in_raw(program: &str, saved: &str, captured: Captured<'_>) -> Vec<Ahead> {
    if !is_met(captured.membership.families(), program) {
        return Vec::new();
    }
    let [prerouting, output] = ["prerouting", "output"].map(|hook| captured.packets(hook));
    let found = iptables::lines(saved, "raw").filter_map(|line| {
        let rule = iptables::rule(line).filter(|rule| rule.verdict == Verdict::Untrack && !is_own(&rule.chain))?;
        // Other chains may be led to from both.
        let mut packets = match rule.chain.as_str() {
            "PREROUTING" => prerouting.iter().chain(&[]),
            "OUTPUT" => output.iter().chain(&[]),
            _ => prerouting.iter().chain(&output),
        };
        let text = line.strip_prefix("-A ")?;
        packets.any(|packet| rule.may_hold(packet)).then(|| Ahead {
            rule: format!("`{text}` of {program}'s table raw"),
            fix: format!("{program} -t raw -D {text}"),
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::control_plane::fixtures::membership;

    fn captured(membership: &Membership) -> Captured<'_> {
        Captured {
            membership,
            backend: Backend::Auto,
        }
    }

    #[test]
    fn rule_of_raw_is_told_where_it_may_keep_captured_packets_from_conntrack() {
        let membership = Membership {
            inbound_ports: Some(vec![3550]),
            dns_capture: true,
            ..membership()
        };
        let told = |rule: &str| {
            let saved = format!("*filter\nCOMMIT\n*raw\n:PREROUTING ACCEPT [0:0]\n-A {rule}\nCOMMIT\n");
            let found = in_raw("iptables-nft", &saved, captured(&membership));
            assert!(
                found
                    .iter()
                    .all(|it| it.fix == format!("iptables-nft -t raw -D {rule}")),
                "{found:?}"
            );
            !found.is_empty()
        };
        for rule in [
            "PREROUTING -j NOTRACK",
            "PREROUTING -p tcp -m tcp ! --dport 22 -j NOTRACK",
            "PREROUTING ! -p icmp -j CT --notrack",
            "PREROUTING -j CT --zone 5",
            "OUTPUT -o eth0 -j CT --zone-orig 5",
            "PREROUTING -p tcp -m multiport --dports 80,3550 -j CT --notrack",
            "PREROUTING -i eth0 -m comment --comment \"a b\" -j NOTRACK",
            "PREROUTING -p udp -m udp --sport 53 -j NOTRACK",
            "OUTPUT -p tcp -m tcp --dport 99 -j NOTRACK",
            "OUTPUT -p tcp -m tcp --sport 3550 -j NOTRACK",
            "OUTPUT -o lo -j NOTRACK",
            "OUTPUT -p udp -m udp --dport 53 -j NOTRACK",
            "OUTPUT ! -p tcp -j NOTRACK",
            "own -p tcp -m tcp --dport 3550 -j NOTRACK",
        ] {
            assert!(told(rule), "{rule}");
        }
        for rule in [
            "PREROUTING -p icmp -j NOTRACK",
            "PREROUTING ! -p tcp -m udp --dport 4789 -j NOTRACK",
            "PREROUTING -p tcp -m tcp ! --dport 3550 -j NOTRACK",
            "PREROUTING -p tcp -m tcp --dport 22 -j NOTRACK",
            "PREROUTING -p tcp -m tcp --dport 3550 -j CT --helper ftp",
            "PREROUTING -p udp -m udp --dport 53 -j NOTRACK",
            "PREROUTING -i lo -j NOTRACK",
            "ISTIO_OUTPUT_DNS -p udp -m udp --dport 53 -j CT --zone 2",
            "OUTPUT -p icmp -j NOTRACK",
            "OUTPUT -p udp -m udp --sport 123 -j NOTRACK",
        ] {
            assert!(!told(rule), "{rule}");
        }
        let all = "*raw\n-A PREROUTING -j NOTRACK\nCOMMIT\n";
        assert_eq!(
            in_raw("ip6tables-nft", all, captured(&membership)),
            [],
            "there are no calls over IPv6"
        );
    }

    #[test]
    fn rule_of_nftables_is_told_where_it_may_take_captured_packets() {
        let membership = Membership {
            inbound_ports: Some(vec![3550]),
            ..membership()
        };
        let told = |prio: i64, expr: Value| {
            let chain =
                json!({"family": "inet", "table": "t", "name": "c", "type": "nat", "hook": "prerouting", "prio": prio});
            let rule = json!({"family": "inet", "table": "t", "chain": "c", "handle": 7, "expr": expr});
            let listing = json!({"nftables": [{ "chain": chain }, { "rule": rule }]}).to_string();
            let host = crate::host::fuzz::machine(&listing);
            let captured = captured(&membership);
            let fixes = |found: Result<Vec<Ahead>>| found.unwrap().into_iter().map(|it| it.fix).collect::<Vec<_>>();
            (fixes(rewriting(&host, captured)), fixes(untracking(&host, captured)))
        };
        let field = |protocol: &str, field: &str, op: &str, right: Value| {
            let left = json!({"payload": {"protocol": protocol, "field": field}});
            json!({"match": {"op": op, "left": left, "right": right}})
        };
        let port = |op: &str, right: Value| field("tcp", "dport", op, right);
        let zone = |value: u16| json!({"mangle": {"key": {"ct": {"key": "zone"}}, "value": value}});
        let (redirect, notrack) = (|| json!({"redirect": {"port": 8080}}), || json!({"notrack": null}));
        let (none, fix) = (
            Vec::<String>::new(),
            vec!["nft delete rule inet t c handle 7".to_owned()],
        );
        for (prio, expr, rewrites, untracks) in [
            (-110, json!([port("==", json!(3550)), redirect()]), &fix, &none),
            (-100, json!([port("==", json!(3550)), redirect()]), &none, &none),
            (-110, json!([port("!=", json!(3550)), redirect()]), &none, &none),
            (-110, json!([port("!=", json!(22)), redirect()]), &fix, &none),
            (
                -300,
                json!([port("==", json!({"range": [3000, 4000]})), notrack()]),
                &none,
                &fix,
            ),
            (-300, json!([zone(5)]), &none, &fix),
            (-300, json!([zone(0)]), &none, &none),
            (-300, json!([port("==", json!(22)), zone(5)]), &none, &none),
            (
                -300,
                json!([field("ip", "protocol", "==", json!("icmp")), notrack()]),
                &none,
                &none,
            ),
            (
                -300,
                json!([field("icmp", "type", "==", json!("echo-request")), notrack()]),
                &none,
                &none,
            ),
            (
                -300,
                json!([field("ip", "protocol", "!=", json!("icmp")), notrack()]),
                &none,
                &fix,
            ),
        ] {
            assert_eq!(told(prio, expr.clone()), (rewrites.clone(), untracks.clone()), "{expr}");
        }
    }
}
