//! The output of iptables-save: which chains there are, and which of them and their rules are ours.

use std::collections::BTreeMap;

use crate::facts::RulePackets;
use crate::intercept::rules::Table;

/// Chains of ours, which are those of Istio's agent for VMs, TPROXY's among them. Others that begin with ISTIO_ are somebody
/// else's: ztunnel's and istio-cni's on a host of pods (ISTIO_PRERT, ISTIO_POSTRT).
const OWN: [&str; 15] = [
    MADE_TABLE,
    "ISTIO_CONTAINER",
    "ISTIO_DIVERT",
    "ISTIO_DROP",
    "ISTIO_FORWARD",
    "ISTIO_IDENTITY",
    "ISTIO_INBOUND",
    "ISTIO_IN_REDIRECT",
    "ISTIO_LISTENERS",
    "ISTIO_LOCAL",
    "ISTIO_LOOSE",
    "ISTIO_OUTPUT",
    "ISTIO_OUTPUT_DNS",
    "ISTIO_REDIRECT",
    "ISTIO_TPROXY",
];

/// Tells whether a chain of that name is ours.
pub(in crate::intercept) fn is_own(chain: &str) -> bool {
    OWN.contains(&chain)
}

/// An empty chain that says that the table was not there before us and goes with us when it is empty.
pub(super) const MADE_TABLE: &str = "ISTIO_VM_AGENT";

#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Saved {
    pub(super) tables: Vec<SavedTable>,
}

#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct SavedTable {
    pub(super) name: String,
    chains: Vec<SavedChain>,
    /// `-A CHAIN …`, in order.
    rules: Vec<String>,
}

#[derive(Debug, Eq, PartialEq)]
struct SavedChain {
    name: String,
    built_in: bool,
    /// The policy of a kernel's chain: what it does with a packet that no rule is about.
    accepts: bool,
}

impl Saved {
    /// Reads the output; lines of unknown form (comments) say nothing about rules.
    pub(super) fn parse(text: &str) -> Self {
        let mut tables: Vec<SavedTable> = Vec::new();
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                tables.push(SavedTable {
                    name: name.to_owned(),
                    ..SavedTable::default()
                });
            } else if let Some(table) = tables.last_mut() {
                table.line(line);
            }
        }
        // Others may have chains that are called like ours; these are the ones we have been in.
        tables.retain(|table| Table::ALL.iter().any(|ours| ours.name() == table.name));
        Self { tables }
    }

    pub(super) fn table(&self, name: &str) -> Option<&SavedTable> {
        self.tables.iter().find(|table| table.name == name)
    }

    /// Number of rules in our chains and of jumps there.
    pub(super) fn own_rules(&self) -> usize {
        self.tables
            .iter()
            .map(|table| table.rules.iter().filter(|rule| is_ours(rule)).count())
            .sum()
    }

    pub(super) fn has_marks(&self) -> bool {
        self.tables.iter().any(|table| table.own_chains().next().is_some())
    }

    /// Tells whether Docker keeps its NAT rules here.
    pub(super) fn has_docker(&self) -> bool {
        self.table("nat")
            .is_some_and(|nat| nat.chains.iter().any(|chain| chain.name == "DOCKER"))
    }
}

impl SavedTable {
    fn line(&mut self, line: &str) {
        if let Some(chain) = line.strip_prefix(':') {
            let mut words = chain.split_whitespace();
            let (name, policy) = (words.next(), words.next().unwrap_or("-"));
            self.chains.extend(name.map(|name| SavedChain {
                name: name.to_owned(),
                built_in: policy != "-",
                accepts: policy == "ACCEPT",
            }));
        } else if line.starts_with("-A ") {
            self.rules.push(line.to_owned());
        }
    }

    fn own_chains(&self) -> impl Iterator<Item = &str> {
        self.chains
            .iter()
            .map(|chain| chain.name.as_str())
            .filter(|name| is_own(name))
    }

    pub(super) fn is_made_by_us(&self) -> bool {
        self.own_chains().any(|name| name == MADE_TABLE)
    }

    /// Tells whether only the kernel's chains are left, and no rule, so that it means nothing to any packet.
    pub(super) fn is_bare(&self) -> bool {
        self.rules.is_empty() && self.chains.iter().all(|chain| chain.built_in && chain.accepts)
    }

    /// Restore lines that take these rules out.
    pub(super) fn removal_of(&self, is_meant: impl Fn(&str) -> bool) -> Vec<String> {
        let meant = self.rules.iter().filter(|rule| is_meant(rule));
        meant.map(|rule| format!("-D{}", &rule[2..])).collect()
    }

    /// Restore lines that take exactly our rules and chains out.
    pub(super) fn removal(&self) -> Vec<String> {
        let jumps = self
            .rules
            .iter()
            .filter(|rule| is_ours(rule) && !is_own(chain_of(rule)))
            .map(|rule| format!("-D{}", &rule[2..]));
        let flush = self.own_chains().map(|chain| format!("-F {chain}"));
        let delete = self.own_chains().map(|chain| format!("-X {chain}"));
        jumps.chain(flush).chain(delete).collect()
    }

    /// The rules of our chains, and the kernel's up to the last jump to ours, in normal form: a foreign rule that
    /// comes before a jump is part of it, one that comes after is not.
    pub(super) fn contents(&self) -> BTreeMap<String, Vec<String>> {
        let mut chains: BTreeMap<String, Vec<String>> = self
            .own_chains()
            .filter(|chain| *chain != MADE_TABLE)
            .map(|chain| (chain.to_owned(), Vec::new()))
            .collect();
        let mut foreign = BTreeMap::<&str, Vec<String>>::new();
        for rule in &self.rules {
            let chain = chain_of(rule);
            let mut words = rule.split_whitespace();
            let normal = normal(words.by_ref().skip(2));
            if is_ours(rule) {
                let mut before = foreign.remove(chain).unwrap_or_default();
                before.push(normal);
                chains.entry(chain.to_owned()).or_default().append(&mut before);
            } else {
                foreign.entry(chain).or_default().push(normal);
            }
        }
        chains
    }
}

/// Packets that our rules have met, by the output of `iptables-save --counters`: `[PACKETS:BYTES] -A CHAIN …`. Chains of
/// other tables than nat's have their table before their name, as in nftables.
pub(super) fn packets(text: &str, family: &str) -> Vec<RulePackets> {
    let mut table = "";
    let counted = text.lines().filter_map(move |line| {
        table = line.strip_prefix('*').unwrap_or(table);
        let (counters, rule) = line.strip_prefix('[')?.split_once("] ")?;
        let rule = Some(rule).filter(|rule| rule.starts_with("-A ") && is_ours(rule))?;
        let chain = chain_of(rule);
        Some(RulePackets {
            family: family.to_owned(),
            chain: match table {
                "nat" => chain.to_owned(),
                other => format!("{other}_{chain}"),
            },
            rule: rule.split_once(chain)?.1.trim_start().to_owned(),
            packets: counters.split(':').next()?.parse().ok()?,
        })
    });
    counted.collect()
}

fn chain_of(rule: &str) -> &str {
    rule.split_whitespace().nth(1).unwrap_or_default()
}

/// Tells whether a rule is in a chain of ours or goes to one.
fn is_ours(rule: &str) -> bool {
    let mut words = rule.split_whitespace();
    words.clone().nth(1).is_some_and(is_own)
        || words.any(|word| word == "-j" || word == "-g") && words.next().is_some_and(is_own)
}

/// A rule's options in an order of their own: iptables-save prints them in another order than they were given,
/// and names the match modules that a protocol brings along.
pub(super) fn normal<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut options: Vec<Vec<&str>> = Vec::new();
    for word in words {
        match options.last_mut() {
            Some(option) if option.last() == Some(&"!") => option.push(word),
            Some(option) if !word.starts_with('-') && word != "!" => option.push(word),
            _ => options.push(vec![word]),
        }
    }
    options.retain(|option| option.first() != Some(&"-m"));
    let mut options: Vec<String> = options.into_iter().map(|words| words.join(" ")).collect();
    options.sort_unstable();
    options.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER_AND_OURS: &str = "# Generated by iptables-save v1.8.9 (nf_tables)
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [7:420]
:DOCKER - [0:0]
:ISTIO_OUTPUT - [0:0]
:ISTIO_VM_AGENT - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -j ISTIO_OUTPUT
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m comment --comment \"to ISTIO_OUTPUT\" -j RETURN
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -j RETURN
COMMIT
";

    #[test]
    fn packets_are_told_of_our_rules_alone() {
        let listed = "*nat\n:OUTPUT ACCEPT [0:0]\n[7:420] -A OUTPUT -j ISTIO_OUTPUT\n[1:60] -A OUTPUT -j DOCKER\n\
                      [2:120] -A ISTIO_OUTPUT -o lo -j RETURN\nCOMMIT\n\
                      *mangle\n[3:9] -A OUTPUT -j ISTIO_OUTPUT\nCOMMIT\n";
        let told = packets(listed, "ip");
        let told: Vec<_> = told
            .iter()
            .map(|it| (it.chain.as_str(), it.rule.as_str(), it.packets))
            .collect();
        assert_eq!(
            told,
            [
                ("OUTPUT", "-j ISTIO_OUTPUT", 7),
                ("ISTIO_OUTPUT", "-o lo -j RETURN", 2),
                ("mangle_OUTPUT", "-j ISTIO_OUTPUT", 3)
            ]
        );
    }

    #[test]
    fn removal_takes_out_ours_only() {
        let saved = Saved::parse(DOCKER_AND_OURS);
        assert_eq!(
            saved.tables[0].removal(),
            [
                "-D OUTPUT -j ISTIO_OUTPUT",
                "-F ISTIO_OUTPUT",
                "-F ISTIO_VM_AGENT",
                "-X ISTIO_OUTPUT",
                "-X ISTIO_VM_AGENT"
            ]
        );
        assert_eq!(saved.own_rules(), 2);
        assert!(saved.has_docker() && saved.tables[0].is_made_by_us() && !saved.tables[0].is_bare());
    }

    #[test]
    fn chains_of_istio_that_are_somebody_elses_stay() {
        let ztunnel = "*nat\n:OUTPUT ACCEPT [0:0]\n:ISTIO_POSTRT - [0:0]\n-A OUTPUT -j ISTIO_POSTRT\nCOMMIT\n";
        let saved = Saved::parse(ztunnel);
        assert_eq!(saved.tables[0].removal(), Vec::<String>::new());
        assert!(!saved.has_marks());
    }

    #[test]
    fn every_chain_of_the_rules_is_known_as_ours() {
        use crate::intercept::rules::Chain;
        for chain in Chain::ALL {
            assert_eq!(is_own(chain.name()), !chain.is_built_in(), "{}", chain.name());
        }
    }

    #[test]
    fn rules_compare_without_order_of_options_and_modules() {
        let given = "-o lo ! -d 127.0.0.1/32 -p tcp ! --dport 15008 -j RETURN";
        let contents = Saved::parse(DOCKER_AND_OURS).tables[0].contents();
        assert_eq!(contents["ISTIO_OUTPUT"], [normal(given.split_whitespace())]);
        assert_eq!(contents["OUTPUT"], ["-j ISTIO_OUTPUT"]);
        assert_eq!(contents.len(), 2, "{contents:?}");
    }

    #[test]
    fn a_table_that_refuses_packets_is_not_bare() {
        for (policy, is_bare) in [("ACCEPT", true), ("DROP", false), ("-", false)] {
            let saved = Saved::parse(&format!("*nat\n:OUTPUT {policy} [0:0]\nCOMMIT\n"));
            assert_eq!(saved.tables[0].is_bare(), is_bare, "{policy}");
        }
    }

    #[test]
    fn a_foreign_rule_before_ours_is_seen() {
        let late = DOCKER_AND_OURS.replace("-A OUTPUT -j ISTIO_OUTPUT\n", "") + "-A OUTPUT -j ISTIO_OUTPUT\n";
        assert_eq!(Saved::parse(&late).tables[0].contents()["OUTPUT"].len(), 3);
    }

    proptest::proptest! {
        #[test]
        fn any_output_is_read(text in "([*:]|-A |ISTIO_|-j | |!|\n|\\PC){0,60}") {
            packets(&text, "ip");
            for table in Saved::parse(&text).tables {
                table.removal();
                table.contents();
            }
        }
    }
}
