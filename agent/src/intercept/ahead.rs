//! Rules of other programs that take a packet before the mesh's rules are asked: ones that rewrite where it goes, and ones
//! that keep it from conntrack, without which nothing is redirected. Read only.

use serde_json::{Value, json};

use super::iptables::legacy_rules;
use super::nftables::TABLE;
use crate::config::Backend;
use crate::facts::Membership;
use crate::host::{Host, Invocation};

/// Priorities of the hooks in which calls are redirected: a table of nftables', and iptables' table `nat`.
const NFTABLES: i64 = -105;
const IPTABLES: i64 = -100;
/// The port of DNS.
const DNS: u16 = 53;

/// A rule that is asked first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Ahead {
    /// Where it is, and what it does.
    pub(super) rule: String,
    /// The command that takes it out.
    pub(super) fix: String,
}

/// What is captured, as such rules may meet it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Captured<'a> {
    pub(super) membership: &'a Membership,
    pub(super) backend: Backend,
}

impl Captured<'_> {
    /// Whether a rule may be for captured packets, by what it matches of them.
    fn may_meet(self, hook: &str, matched: &Matched) -> bool {
        let Membership { inbound_ports, .. } = self.membership;
        let is_inbound = |holds: &dyn Fn(u16) -> bool| match inbound_ports {
            Some(ports) => ports.iter().any(|port| holds(*port)),
            None => true,
        };
        let ours = |ports: &Option<Value>| {
            ports
                .as_ref()
                .is_none_or(|right| is_inbound(&|port| holds(right, port)))
        };
        let names = |ports: &Option<Value>| ports.as_ref().is_some_and(|right| holds(right, DNS));
        match (matched.is_udp, hook) {
            (true, "prerouting") => self.membership.dns_capture && names(&matched.from),
            (true, _) => self.membership.dns_capture && names(&matched.to),
            // On lo a packet keeps what its own way out has made of it.
            (false, "prerouting") => !matched.on_lo && ours(&matched.to),
            (false, _) => matched.to.is_some() || ours(&matched.from),
        }
    }
}

/// What a rule matches, of what matters here.
#[derive(Debug, Default)]
struct Matched {
    is_udp: bool,
    on_lo: bool,
    /// Ports, as nft(8) has them.
    to: Option<Value>,
    from: Option<Value>,
}

/// Rules that send captured packets elsewhere before they are redirected. Blocks.
pub(super) fn rewriting(host: &Host, captured: Captured<'_>) -> Vec<Ahead> {
    let own = match captured.backend {
        Backend::Iptables => IPTABLES,
        Backend::Auto | Backend::Nftables | Backend::None => NFTABLES,
    };
    listed(&listing(host), captured, |chain, rule| {
        let is_before = chain["type"] == "nat" && chain["prio"].as_i64().is_some_and(|priority| priority < own);
        is_before && has(rule, &["redirect", "dnat"])
    })
}

/// Rules that keep captured packets from conntrack. Blocks.
pub(super) fn untracking(host: &Host, captured: Captured<'_>) -> Vec<Ahead> {
    let mut found = listed(&listing(host), captured, |_, rule| has(rule, &["notrack"]));
    let over_nftables = ["iptables-nft", "ip6tables-nft"].map(|program| {
        let saved = host.run(&Invocation::new([format!("{program}-save")]));
        (program.to_owned(), saved.unwrap_or_default())
    });
    for (program, saved) in over_nftables.into_iter().chain(legacy_rules(host).unwrap_or_default()) {
        found.extend(saved_raw(&program, &saved, captured));
    }
    found
}

fn listing(host: &Host) -> Value {
    let text = host.run(&Invocation::new(["nft", "-a", "-j", "list", "ruleset"]));
    serde_json::from_str(&text.unwrap_or_default()).unwrap_or_default()
}

fn listed(listing: &Value, captured: Captured<'_>, is_meant: impl Fn(&Value, &Value) -> bool) -> Vec<Ahead> {
    let objects = || listing["nftables"].as_array().into_iter().flatten();
    let chains: Vec<&Value> = objects()
        .filter_map(|object| object.get("chain"))
        .filter(|chain| ["prerouting", "output"].iter().any(|hook| chain["hook"] == *hook) && chain["table"] != TABLE)
        .collect();
    let of = |rule: &Value| {
        let is_of = |chain: &&&Value| {
            let same = |key: &str, other: &str| chain[key] == rule[other];
            same("family", "family") && same("table", "table") && same("name", "chain")
        };
        let chain = chains.iter().find(is_of)?;
        let hook = chain["hook"].as_str()?;
        (is_meant(chain, rule) && captured.may_meet(hook, &matched(rule))).then(|| ahead(chain, rule))
    };
    objects()
        .filter_map(|object| object.get("rule"))
        .filter_map(of)
        .collect()
}

fn ahead(chain: &Value, rule: &Value) -> Ahead {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place = format!(
        "{} {} {}",
        text(&rule["family"]),
        text(&rule["table"]),
        text(&rule["chain"])
    );
    let handle = &rule["handle"];
    Ahead {
        rule: format!("rule {handle} of the chain {place} (priority {})", chain["prio"]),
        fix: format!("nft delete rule {place} handle {handle}"),
    }
}

fn has(rule: &Value, words: &[&str]) -> bool {
    let mut expressions = rule["expr"].as_array().into_iter().flatten();
    expressions.any(|it| words.iter().any(|word| it.get(word).is_some()))
}

fn matched(rule: &Value) -> Matched {
    let mut matched = Matched::default();
    let expressions = rule["expr"].as_array().into_iter().flatten();
    for it in expressions
        .filter_map(|it| it.get("match"))
        .filter(|it| it["op"] == "==")
    {
        let (left, right) = (&it["left"], &it["right"]);
        let payload = &left["payload"];
        matched.is_udp |= payload["protocol"] == "udp" || left["meta"]["key"] == "l4proto" && *right == "udp";
        matched.on_lo |= *right == "lo";
        match payload["field"].as_str() {
            Some("dport") => matched.to = Some(right.clone()),
            Some("sport") => matched.from = Some(right.clone()),
            _ => {}
        }
    }
    matched
}

/// Of iptables' table `raw`, whose target nft(8) says no more of than that it is there.
pub(super) fn saved_raw(program: &str, saved: &str, captured: Captured<'_>) -> Vec<Ahead> {
    let table = saved.split("*raw\n").nth(1).unwrap_or_default();
    let lines = table.lines().take_while(|line| *line != "COMMIT");
    let untracks = |line: &&str| line.ends_with("-j NOTRACK") || line.ends_with("-j CT --notrack");
    let found = lines.filter(untracks).filter_map(|line| {
        let rule = line.strip_prefix("-A ")?;
        let (chain, _) = rule.split_once(' ')?;
        let ports = |options: [&str; 2]| {
            let list = options.iter().find_map(|option| rule.split_once(option))?.1;
            let items = list.split_whitespace().next()?.split(',');
            let set: Option<Vec<Value>> = items.map(range).collect();
            set.map(|set| json!({ "set": set }))
        };
        let matched = Matched {
            is_udp: rule.contains(" -p udp "),
            on_lo: rule.contains("-i lo ") || rule.contains("-o lo "),
            to: ports([" --dport ", " --dports "]),
            from: ports([" --sport ", " --sports "]),
        };
        captured.may_meet(&chain.to_lowercase(), &matched).then(|| Ahead {
            rule: format!("`{rule}` of {program}'s table raw"),
            fix: format!("{program} -t raw -D {rule}"),
        })
    });
    found.collect()
}

fn range(item: &str) -> Option<Value> {
    let (first, last) = item.split_once(':').unwrap_or((item, item));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    Some(json!({ "range": [first, last] }))
}

/// Tells whether a port, a range or a set of both has this one; a set by name may.
fn holds(right: &Value, port: u16) -> bool {
    if let Some(set) = right["set"].as_array() {
        return set.iter().any(|item| holds(item, port));
    }
    match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => (first.as_u64()..=last.as_u64()).contains(&Some(port.into())),
        _ => right.is_string() || right.as_u64() == Some(port.into()),
    }
}
