//! The rules as one nftables table, and what is known of a table from its text.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};
use ipnet::IpNet;

use super::{Family, TABLE, WALL};
use crate::facts::RulePackets;
use crate::host::FilterTable;
use crate::intercept::rules::{self, Chain, LO, Match, Rule, Ruleset, Table, Verdict};

/// The table of one family, as `nft -f` reads it; written like `nft list` writes it, for the eye that compares them. Empty
/// where there is nothing to be in it.
pub(super) fn table(ruleset: &Ruleset, family: Family) -> String {
    let body = body(ruleset, |table| Family::of(table) == family);
    if body.is_empty() {
        return body;
    }
    let hash = hex::encode(digest(&SHA256, body.as_bytes()));
    format!(
        "table {} {TABLE} {{\n\tcomment \"rules {hash}\"\n{body}}}\n",
        family.name()
    )
}

/// The drops alone, as lines of `nft -i`: one for each family that there are any in.
pub(super) fn wall(ruleset: &Ruleset) -> String {
    let mut lines = Vec::new();
    for (family, drops) in [(Family::Inet, Table::Mangle), (Family::Bridge, Table::Bridge)] {
        // A semicolon ends no opening brace.
        let body = body(ruleset, |table| table == drops)
            .replace('\n', "; ")
            .replace("{;", "{");
        if !body.is_empty() {
            let wall = format!("table {} {WALL}", family.name());
            lines.push(format!(
                "add {wall} {{ flags owner; }}; delete {wall}; {wall} {{ flags owner; {body} }}"
            ));
        }
    }
    lines.join("\n")
}

fn body(ruleset: &Ruleset, is_meant: impl Fn(Table) -> bool) -> String {
    let mut body = String::new();
    for (table, chain) in chains(ruleset).into_iter().filter(|(table, _)| is_meant(*table)) {
        let mut rules: Vec<String> = Vec::new();
        for rule in ruleset
            .rules
            .iter()
            .filter(|rule| (rule.table, rule.chain) == (table, chain))
        {
            let at = if rule.first { 0 } else { rules.len() };
            rules.insert(at, format!("{}counter {}", conditions(rule), statement(rule)));
        }
        body += &format!("\n\tchain {} {{\n", name(table, chain));
        for line in hook(table, chain).into_iter().chain(rules) {
            body += &format!("\t\t{line}\n");
        }
        body += "\t}\n";
    }
    body
}

/// All chains that hold rules or are jumped to, each once.
fn chains(ruleset: &Ruleset) -> Vec<(Table, Chain)> {
    let mut chains = Vec::new();
    for rule in &ruleset.rules {
        let target = match rule.verdict {
            Verdict::Jump(target) => target,
            _ => rule.chain,
        };
        for chain in [(rule.table, rule.chain), (rule.table, target)] {
            if !chains.contains(&chain) {
                chains.push(chain);
            }
        }
    }
    chains
}

/// Marks that two accounts of the same table have in common, whoever wrote them.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Fingerprint {
    comment: String,
    /// Rules per chain.
    chains: BTreeMap<String, usize>,
}

impl Fingerprint {
    pub(super) fn rules(&self) -> usize {
        self.chains.values().sum()
    }
}

impl From<FilterTable> for Fingerprint {
    fn from(table: FilterTable) -> Self {
        let FilterTable { comment, chains } = table;
        Self { comment, chains }
    }
}

/// The chains of a table's text, each with its rules in order.
fn rules_of(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut inside = None;
    text.lines().map(str::trim).filter_map(move |line| {
        if let Some(chain) = line.strip_prefix("chain ") {
            inside = Some(chain.trim_end_matches([' ', '{']));
        } else if line == "}" {
            inside = None;
        }
        let is_rule = !line.is_empty() && !["type ", "chain "].iter().any(|start| line.starts_with(start));
        inside.filter(|_| is_rule).map(|chain| (chain, line))
    })
}

/// Packets that each rule of a table's text has counted, in order; a rule without a counter has none.
pub(super) fn packets(text: &str, family: Family) -> Vec<RulePackets> {
    let counted = rules_of(text).filter_map(|(chain, line)| {
        let (matches, counter) = line.split_once("counter packets ")?;
        let (packets, rest) = counter.split_once(" bytes ")?;
        let (_, statement) = rest.split_once(' ')?;
        Some(RulePackets {
            family: family.name().to_owned(),
            chain: chain.to_owned(),
            rule: format!("{matches}{statement}"),
            packets: packets.parse().ok()?,
        })
    });
    counted.collect()
}

/// Reads a table's text, the kernel's or ours.
pub(super) fn fingerprint(text: &str) -> Fingerprint {
    let mut chains = BTreeMap::<String, usize>::new();
    let lines = || text.lines().map(str::trim);
    for chain in lines().filter_map(|line| line.strip_prefix("chain ")) {
        chains.entry(chain.trim_end_matches([' ', '{']).to_owned()).or_default();
    }
    for (chain, _) in rules_of(text) {
        *chains.entry(chain.to_owned()).or_default() += 1;
    }
    let comment = lines()
        .take_while(|line| !line.starts_with("chain "))
        .find_map(|line| line.strip_prefix("comment "));
    Fingerprint {
        comment: comment.unwrap_or_default().trim_matches('"').to_owned(),
        chains,
    }
}

/// One table holds what iptables has in three: the two that are not nat name themselves.
fn name(table: Table, chain: Chain) -> String {
    let chain = chain.name().to_lowercase();
    match table {
        Table::Nat => chain,
        Table::Bridge | Table::Mangle | Table::Raw => format!("{}_{chain}", table.name()),
    }
}

/// Where a chain of netfilter's hooks in; none for those that are jumped to.
fn hook(table: Table, chain: Chain) -> Option<String> {
    let hook = match chain {
        Chain::Prerouting => "prerouting",
        Chain::Input => "input",
        Chain::Forward => "forward",
        Chain::Output => "output",
        Chain::Postrouting => "postrouting",
        _ => return None,
    };
    let (kind, priority) = match table {
        // `filter`, of the names that a bridge has.
        Table::Bridge => ("filter", -200),
        // Conntrack zones: before conntrack, at -200.
        Table::Raw => ("filter", -300),
        Table::Mangle => ("filter", -150),
        // dstnat - 5; by number, because `dstnat` is no name in the output hook.
        Table::Nat => ("nat", -105),
    };
    Some(format!("type {kind} hook {hook} priority {priority}; policy accept;"))
}

pub(super) fn line(rule: &Rule) -> String {
    conditions(rule) + &statement(rule)
}

/// The matches, each with a blank after it.
fn conditions(rule: &Rule) -> String {
    let mut words: Vec<String> = Vec::new();
    // A port match says the protocol itself.
    let says_protocol = rule.matches.iter().any(|matches| {
        use Match::{DestPort, DestPorts, NotDestPorts, NotSourcePorts, SourcePort, SourcePorts};
        matches!(
            matches,
            DestPort(_)
                | DestPorts(_)
                | NotDestPorts(_)
                | NotSourcePorts(_)
                | SourcePort(_)
                | SourcePorts(_)
                | Match::NotSyn
                | Match::Syn
                | Match::SynAck
        )
    });
    let protocol = if rule.matches.contains(&Match::Udp) {
        "udp"
    } else {
        "tcp"
    };
    // An address match says its family itself, though on a bridge not what is beneath a tag; a rule of one family without
    // one must.
    let says_family = |matches: &Match| matches!(matches, Match::Source(_) | Match::Dest(_) | Match::NotDest(_));
    if let Some(family) = rule.family
        && !rule.matches.iter().any(says_family)
    {
        words.push(format!(
            "meta nfproto {}",
            if family == rules::Family::V4 { "ipv4" } else { "ipv6" }
        ));
    }
    for matches in &rule.matches {
        if let (Table::Bridge, Match::Source(net) | Match::Dest(net)) = (rule.table, matches) {
            words.push(format!("meta protocol {}", ip(net)));
        }
        match matches {
            Match::Tcp | Match::Udp if says_protocol => {}
            other => words.push(expression(other, protocol)),
        }
    }
    words.iter().map(|word| format!("{word} ")).collect()
}

fn expression(matches: &Match, protocol: &str) -> String {
    match matches {
        Match::In(nic) => format!("{} {nic:?}", interface("iif", nic)),
        Match::NotIn(nic) => format!("{} != {nic:?}", interface("iif", nic)),
        Match::Out(nic) => format!("{} {nic:?}", interface("oif", nic)),
        Match::NotOut(nic) => format!("{} != {nic:?}", interface("oif", nic)),
        Match::Source(net) => format!("{} saddr {net}", ip(net)),
        Match::Dest(net) => format!("{} daddr {net}", ip(net)),
        Match::NotDest(net) => format!("{} daddr != {net}", ip(net)),
        // The kernel has taken the outer tag off (16 bits at 112 of what it puts together again); the inner one is left.
        Match::NestedTag => "meta protocol { 8021q, 8021ad } @ll,112,16 & 0x0fff == 0".to_owned(),
        // By the protocol, as an address on a bridge: what is beneath a tag is meant, too.
        Match::RouterAdvertisement => "meta protocol ip6 icmpv6 type nd-router-advert".to_owned(),
        Match::HiddenTransport => "frag nexthdr != { tcp, udp, ipv6-icmp }".to_owned(),
        Match::Claim(IpAddr::V4(address)) => format!("meta protocol arp arp saddr ip {address}"),
        // Its target, of which nft has no name before 1.0.8: 128 bits at 64 of the message.
        Match::Claim(IpAddr::V6(address)) => {
            let target = address.to_bits();
            format!("meta protocol ip6 icmpv6 type nd-neighbor-advert @th,64,128 {target:#x}")
        }
        Match::ToSelf => "fib daddr type local".to_owned(),
        Match::NotToSelf => "fib daddr type != local".to_owned(),
        Match::Tcp | Match::Udp => format!("meta l4proto {protocol}"),
        Match::Syn => "tcp flags & (fin | syn | rst | ack) == syn".to_owned(),
        Match::NotSyn => "tcp flags & (fin | syn | rst | ack) != syn".to_owned(),
        Match::SynAck => "tcp flags & (syn | ack) == syn | ack".to_owned(),
        Match::DestPort(port) => format!("{protocol} dport {port}"),
        Match::DestPorts(of) => format!("{protocol} dport {}", ports(of)),
        Match::NotDestPorts(of) => format!("{protocol} dport != {}", ports(of)),
        Match::SourcePort(port) => format!("{protocol} sport {port}"),
        Match::SourcePorts(of) => format!("{protocol} sport {}", ports(of)),
        Match::NotSourcePorts(range) => format!("{protocol} sport != {}-{}", range.start(), range.end()),
        Match::FromSelf => "fib saddr type local".to_owned(),
        // Without a program there is no user, and no comparison with one holds.
        Match::Owned => "meta skuid >= 0".to_owned(),
        Match::Uid(uid) => format!("meta skuid {uid}"),
        Match::NotUid(uid) => format!("meta skuid != {uid}"),
        Match::Gid(gid) => format!("meta skgid {gid}"),
        Match::NotGid(gid) => format!("meta skgid != {gid}"),
        Match::Invalid => "ct state invalid".to_owned(),
        Match::New => "ct state new".to_owned(),
        Match::Reply => "ct direction reply".to_owned(),
        Match::Dnat => "ct status dnat".to_owned(),
        Match::NotOriginalDestPort(port) => format!("ct original proto-dst != {port}"),
    }
}

/// The match of an interface: lo's by its number, which is sooner compared than a name and the same as long as a network
/// namespace lives; any other may come later, or again.
fn interface(side: &str, nic: &str) -> String {
    match nic {
        LO => side.to_owned(),
        _ => format!("{side}name"),
    }
}

fn ip(net: &IpNet) -> &'static str {
    if net.addr().is_ipv4() { "ip" } else { "ip6" }
}

fn ports(ports: &[u16]) -> String {
    match ports {
        [port] => port.to_string(),
        ports => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            format!("{{ {} }}", ports.join(", "))
        }
    }
}

fn statement(rule: &Rule) -> String {
    match rule.verdict {
        Verdict::Return => "return".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Jump(chain) => format!("jump {}", name(rule.table, chain)),
        Verdict::Redirect(port) => format!("redirect to :{port}"),
        Verdict::Zone(zone) => format!("ct zone set {zone}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::capture::{Capture, Select};

    #[test]
    fn fingerprint_is_the_same_of_the_kernels_text_and_ours() {
        let capture = Capture {
            inbound_ports_include: Select::Only(vec![3550]),
            outbound_ip_ranges_include: Select::All,
            dns_servers: vec!["10.0.0.2".parse().unwrap()],
            ..Capture::default()
        };
        let text = table(&capture.rules(), Family::Inet);
        let listed = text.replace("priority -105", "priority dstnat - 5");
        assert_eq!(fingerprint(&text), fingerprint(&listed));
        assert_eq!(fingerprint(&text).rules(), capture.rules().len());
        let flushed = text.replace("\t\ttcp dport 3550 counter jump istio_in_redirect\n", "");
        assert_ne!(fingerprint(&text), fingerprint(&flushed));
    }

    #[test]
    fn lo_is_told_by_its_number_and_others_by_name() {
        let capture = Capture {
            inbound_ports_include: Select::Only(vec![3550]),
            exclude_interfaces: vec!["eth9".to_owned()],
            ..Capture::default()
        };
        let text = table(&capture.rules(), Family::Inet);
        for rule in [
            "oif \"lo\" tcp dport { 3550, 15001, 15006, 15007 } counter jump mangle_istio_local",
            "iif != \"lo\" counter jump mangle_istio_inbound",
            "iifname \"eth9\" counter return",
        ] {
            assert!(text.contains(&format!("\t\t{rule}\n")), "{rule}: {text}");
        }
    }

    #[test]
    fn fingerprint_differs_with_the_ruleset() {
        let ruleset = |port| {
            let capture = Capture {
                inbound_ports_include: Select::Only(vec![port]),
                ..Capture::default()
            };
            table(&capture.rules(), Family::Inet)
        };
        assert_ne!(fingerprint(&ruleset(3550)), fingerprint(&ruleset(3551)));
    }

    #[test]
    fn packets_are_told_of_each_rule_in_its_chain() {
        let listed = "table inet istio_vm_agent {\n\tcomment \"rules 1\"\n\n\tchain output {\n\
                      \t\ttype nat hook output priority -105; policy accept;\n\
                      \t\toif \"lo\" counter packets 3 bytes 180 return\n\
                      \t\tcounter packets 18446744073709551615 bytes 9 jump istio_output\n\t\tmeta skuid 0 return\n\t}\n}\n";
        let told = packets(listed, Family::Inet);
        let told: Vec<_> = told
            .iter()
            .map(|it| (it.chain.as_str(), it.rule.as_str(), it.packets))
            .collect();
        let wanted = [
            ("output", "oif \"lo\" return", 3),
            ("output", "jump istio_output", u64::MAX),
        ];
        assert_eq!(told, wanted);
    }

    proptest::proptest! {
        #[test]
        fn any_listing_is_read(text in "(chain |\\{|\\}|\n|comment |counter packets | bytes |\\PC){0,60}") {
            fingerprint(&text).rules();
            packets(&text, Family::Inet);
        }
    }
}
