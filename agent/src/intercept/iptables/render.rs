//! The rules as input of iptables-restore.

use std::collections::BTreeMap;

use crate::intercept::rules::{Chain, Family, Match, Rule, Ruleset, Table, Verdict};

/// One table's part, between `* table` and `COMMIT`: new chains, then rules.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Lines {
    pub(super) chains: Vec<&'static str>,
    pub(super) rules: Vec<String>,
}

/// Lines that are to be added to each table, `-N` and rules; Istio's reference cases are in this form.
#[cfg(test)]
pub(in crate::intercept) fn script(ruleset: &Ruleset, family: Family) -> String {
    let mut script = String::new();
    for table in ruleset.tables() {
        let Lines { chains, rules } = lines(ruleset, table, family);
        script += &format!("* {}\n", table.name());
        for chain in chains {
            script += &format!("-N {chain}\n");
        }
        for rule in rules {
            script += &format!("{rule}\n");
        }
        script += "COMMIT\n";
    }
    script
}

pub(super) fn lines(ruleset: &Ruleset, table: Table, family: Family) -> Lines {
    let mut lines = Lines::default();
    let mut chain = |chain: Chain| {
        if !chain.is_built_in() && !lines.chains.contains(&chain.name()) {
            lines.chains.push(chain.name());
        }
    };
    for rule in own(ruleset, table, family) {
        chain(rule.chain);
        if let Verdict::Jump(target) = rule.verdict {
            chain(target);
        }
        lines.rules.push(line(rule));
    }
    lines
}

/// Rules of each chain once they are in, without the options that place them.
pub(super) fn contents(ruleset: &Ruleset, table: Table, family: Family) -> BTreeMap<String, Vec<String>> {
    let mut chains = BTreeMap::<String, Vec<String>>::new();
    for chain in lines(ruleset, table, family).chains {
        chains.entry(chain.to_owned()).or_default();
    }
    for rule in own(ruleset, table, family) {
        let chain = chains.entry(rule.chain.name().to_owned()).or_default();
        let at = if rule.first { 0 } else { chain.len() };
        chain.insert(at, specification(rule));
    }
    chains
}

fn own(ruleset: &Ruleset, table: Table, family: Family) -> impl Iterator<Item = &Rule> {
    ruleset
        .rules
        .iter()
        .filter(move |rule| rule.table == table && rule.is_for(family))
}

fn line(rule: &Rule) -> String {
    let chain = rule.chain.name();
    let specification = specification(rule);
    if rule.first {
        format!("-I {chain} 1 {specification}")
    } else {
        format!("-A {chain} {specification}")
    }
}

fn specification(rule: &Rule) -> String {
    let mut words: Vec<String> = rule.matches.iter().map(options).collect();
    words.push(match rule.verdict {
        Verdict::Return => "-j RETURN".to_owned(),
        Verdict::Drop => "-j DROP".to_owned(),
        Verdict::Jump(chain) => format!("-j {}", chain.name()),
        Verdict::Redirect(port) => format!("-j REDIRECT --to-ports {port}"),
        // To 127.0.0.1: iptables has no DNAT to where a packet goes anyway.
        Verdict::Zone(zone) => format!("-j CT --zone {zone}"),
    });
    words.join(" ")
}

fn options(matches: &Match) -> String {
    match matches {
        Match::In(nic) => format!("-i {nic}"),
        Match::NotIn(nic) => format!("! -i {nic}"),
        Match::Out(nic) => format!("-o {nic}"),
        Match::NotOut(nic) => format!("! -o {nic}"),
        Match::Source(net) => format!("-s {net}"),
        Match::Dest(net) => format!("-d {net}"),
        Match::NotDest(net) => format!("! -d {net}"),
        // Of nftables' bridge alone.
        Match::NestedTag | Match::RouterAdvertisement | Match::HiddenTransport | Match::Claim(_) => String::new(),
        Match::ToSelf => "-m addrtype --dst-type LOCAL".to_owned(),
        Match::NotToSelf => "-m addrtype ! --dst-type LOCAL".to_owned(),
        Match::Tcp => "-p tcp".to_owned(),
        Match::Udp => "-p udp".to_owned(),
        Match::Syn => "--tcp-flags FIN,SYN,RST,ACK SYN".to_owned(),
        Match::NotSyn => "! --tcp-flags FIN,SYN,RST,ACK SYN".to_owned(),
        Match::SynAck => "--tcp-flags SYN,ACK SYN,ACK".to_owned(),
        Match::DestPort(port) => format!("--dport {port}"),
        Match::DestPorts(of) => ports("", "dport", of),
        Match::NotDestPorts(of) => ports("! ", "dport", of),
        Match::SourcePort(port) => format!("--sport {port}"),
        Match::SourcePorts(of) => ports("", "sport", of),
        Match::NotSourcePorts(range) => format!("! --sport {}:{}", range.start(), range.end()),
        Match::FromSelf => "-m addrtype --src-type LOCAL".to_owned(),
        Match::Owned => "-m owner --socket-exists".to_owned(),
        Match::Uid(uid) => format!("-m owner --uid-owner {uid}"),
        Match::NotUid(uid) => format!("-m owner ! --uid-owner {uid}"),
        Match::Gid(gid) => format!("-m owner --gid-owner {gid}"),
        Match::NotGid(gid) => format!("-m owner ! --gid-owner {gid}"),
        Match::Invalid => "-m conntrack --ctstate INVALID".to_owned(),
        Match::New => "-m conntrack --ctstate NEW".to_owned(),
        Match::Reply => "-m conntrack --ctdir REPLY".to_owned(),
        Match::Dnat => "-m conntrack --ctstate DNAT".to_owned(),
        Match::NotOriginalDestPort(port) => format!("-m conntrack ! --ctorigdstport {port}"),
    }
}

fn ports(not: &str, side: &str, ports: &[u16]) -> String {
    match ports {
        [port] => format!("{not}--{side} {port}"),
        ports => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("-m multiport {not}--{side}s {}", ports.join(","))
        }
    }
}
