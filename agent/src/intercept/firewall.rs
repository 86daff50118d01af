//! Other programs' firewalls. What is redirected comes to their chains with the port that it is redirected to, which they
//! don't let pass because the one that was called is. Read only, and by what is plain: a set or a map by name is not
//! followed.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod iptables;
mod nft;
mod remedy;
mod rule;

use std::cell::OnceCell;
use std::collections::BTreeSet;

use serde_json::Value;

use self::rule::{Call, Rule};
use super::iptables::legacy_rules;
use super::nftables::TABLE;
use crate::host::{Host, Invocation};

/// The chains of a firewall.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Those that calls to this VM come to.
    Input,
    /// Those that calls of its programs come to. One that is redirected to loopback still leaves, as they see it, by the
    /// interface that it was for: no rule for `lo` lets it out (nf_nat_inet_fn routes anew only after the hook).
    Output,
    /// Those that packets on lo come to: from programs to Envoy and the agent, from Envoy to the application.
    LoopbackInput,
    /// Those that the same packets leave by.
    LoopbackOutput,
}

impl Hook {
    /// Its name to nft(8).
    fn name(self) -> &'static str {
        match self {
            Self::Input | Self::LoopbackInput => "input",
            Self::Output | Self::LoopbackOutput => "output",
        }
    }

    fn is_loopback(self) -> bool {
        matches!(self, Self::LoopbackInput | Self::LoopbackOutput)
    }
}

/// The ports that a firewall keeps closed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Closed {
    pub(super) ports: BTreeSet<u16>,
    /// The commands that open them.
    pub(super) remedies: BTreeSet<String>,
}

impl Closed {
    /// What both keep closed.
    fn and(mut self, other: Self) -> Self {
        self.ports.extend(other.ports);
        self.remedies.extend(other.remedies);
        self
    }
}

/// What programs list of this VM's rules, asked once.
#[derive(Debug)]
pub(super) struct Listing {
    host: Host,
    /// By nft(8), which has the rules of iptables over nf_tables too.
    nftables: Option<Value>,
    /// What nft(8) can't say of these, of IPv4 and of IPv6.
    saved: [OnceCell<String>; 2],
    /// What each program lists of iptables' own tables.
    legacy: Vec<(String, String)>,
}

impl Listing {
    /// Without what can't be listed. Blocks.
    pub(super) fn of(host: &Host) -> Self {
        let listing = host.run(&Invocation::new(["nft", "-j", "list", "ruleset"])).ok();
        Self {
            host: host.clone(),
            nftables: listing.and_then(|listing| serde_json::from_str(&listing).ok()),
            saved: Default::default(),
            legacy: legacy_rules(host),
        }
    }

    /// The ports of `wanted` that a chain of another program drops; `None`: none, or it can't be seen. Blocks.
    pub(super) fn closed(&self, hook: Hook, wanted: &[u16]) -> Option<Closed> {
        let nftables = self.nftables.as_ref();
        let nftables = nftables.and_then(|listing| of(listing, hook, wanted, &|family| self.saved(family)));
        let legacy = self.legacy.iter();
        let legacy = legacy.filter_map(|(program, saved)| iptables::closed(program, saved, hook, wanted));
        nftables.into_iter().chain(legacy).reduce(Closed::and)
    }

    fn saved(&self, family: &str) -> String {
        let (saved, program) = match family {
            "ip6" => (&self.saved[1], "ip6tables-nft-save"),
            _ => (&self.saved[0], "iptables-nft-save"),
        };
        let list = || self.host.run(&Invocation::new([program])).unwrap_or_default();
        saved.get_or_init(list).clone()
    }
}

/// `saved` gives the rules of a family as iptables has them.
fn of(listing: &Value, hook: Hook, wanted: &[u16], saved: &dyn Fn(&str) -> String) -> Option<Closed> {
    let objects = listing["nftables"].as_array()?;
    let listed: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    let closed = chains
        .filter(|chain| chain["hook"] == hook.name() && chain["table"] != TABLE)
        .filter_map(|chain| {
            let of_table = |rule: &&&Value| rule["table"] == chain["table"] && rule["family"] == chain["family"];
            let listed: Vec<&Value> = listed.iter().filter(of_table).copied().collect();
            // nft(8) says of a match of iptables', such as ufw's lists of ports, that it is there, and no more.
            let rules: Vec<Rule> = match listed.iter().all(|rule| is_plain(rule)) {
                true => listed.iter().flat_map(|rule| nft::rules(rule)).collect(),
                false => iptables::filter(&saved(chain["family"].as_str()?)).0,
            };
            let (name, drops) = (chain["name"].as_str()?, chain["policy"] == "drop");
            let missing = missing(&rules, name, drops, hook, wanted)?;
            Some(Closed {
                remedies: [remedy::of(chain, &listed, hook, &missing)].into(),
                ports: missing.into_iter().collect(),
            })
        });
    closed.reduce(Closed::and)
}

/// The ports of `wanted` that a chain of these rules drops; `None`: none.
fn missing(rules: &[Rule], chain: &str, policy_drops: bool, hook: Hook, wanted: &[u16]) -> Option<Vec<u16>> {
    let passes = |port: &u16| rule::passes(rules, chain, Call { hook, port: *port }).unwrap_or(!policy_drops);
    let missing: Vec<u16> = wanted.iter().copied().filter(|port| !passes(port)).collect();
    (!missing.is_empty()).then_some(missing)
}

fn is_plain(rule: &Value) -> bool {
    rule["expr"]
        .as_array()
        .into_iter()
        .flatten()
        .all(|it| it.get("xt").is_none())
}

#[cfg(test)]
mod tests;
