//! Other programs' firewalls. What is redirected comes to their chains with the port that it is redirected to, which they
//! don't let pass because the one that was called is. Read only, and by what is plain: a set or a map by name is not
//! followed.

pub(super) mod ahead;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod iptables;
mod nft;
mod remedy;
mod rule;

use std::cell::OnceCell;
use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::Value;

use self::rule::{Call, Rule};
use super::iptables::{is_own, legacy_rules};
use super::nftables::TABLE;
use crate::host::{CommandError, Host, Invocation};

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
    /// Whether there are calls over IPv4, and over IPv6.
    families: (bool, bool),
    /// By nft(8), which has the rules of iptables over nf_tables too.
    nftables: Value,
    /// What nft(8) can't say of these, of IPv4 and of IPv6; `None` where the program is not installed.
    saved: [OnceCell<Option<String>>; 2],
    /// What each program lists of iptables' own tables.
    legacy: Vec<(String, String)>,
}

impl Listing {
    /// Of what calls over IPv4, and over IPv6, come to. Blocks.
    ///
    /// # Errors
    /// When a program that is installed doesn't list them.
    pub(super) fn of(host: &Host, families: (bool, bool)) -> Result<Self> {
        Ok(Self {
            host: host.clone(),
            families,
            nftables: listed(host)?,
            saved: Default::default(),
            legacy: legacy_rules(host)?,
        })
    }

    /// The ports of `wanted` that a chain of another program drops; `None`: none, or it can't be seen. Blocks.
    ///
    /// # Errors
    /// When a program that is installed doesn't list its rules.
    pub(super) fn closed(&self, hook: Hook, wanted: &[u16]) -> Result<Option<Closed>> {
        let mut found = Vec::new();
        let is_asked = |chain: &&Value| chain["hook"] == hook.name() && chain["table"] != TABLE;
        for chain in objects(&self.nftables, "chain").filter(is_asked) {
            if is_met(self.families, word(&chain["family"])) {
                found.extend(self.closed_by(chain, hook, wanted)?);
            }
        }
        for (program, saved) in &self.legacy {
            if is_met(self.families, program) {
                found.extend(iptables::closed(program, saved, hook, wanted));
            }
        }
        Ok(found.into_iter().reduce(Closed::and))
    }

    fn closed_by(&self, chain: &Value, hook: Hook, wanted: &[u16]) -> Result<Option<Closed>> {
        let is_of_table = |rule: &&Value| rule["table"] == chain["table"] && rule["family"] == chain["family"];
        let listed: Vec<&Value> = objects(&self.nftables, "rule").filter(is_of_table).collect();
        // nft(8) says of a match of iptables', such as ufw's lists of ports, that it is there, and no more.
        let mut rules: Vec<Rule> = match listed.iter().all(|rule| is_plain(rule)) {
            true => listed.iter().flat_map(|rule| nft::rules(rule)).collect(),
            false => match self.saved(word(&chain["family"]))? {
                Some(saved) => iptables::table(saved, word(&chain["table"])).0,
                None => return Ok(None),
            },
        };
        rules.retain(|rule| !is_own(&rule.chain));
        let missing = missing(&rules, word(&chain["name"]), chain["policy"] == "drop", hook, wanted);
        Ok(missing.map(|missing| Closed {
            remedies: [remedy::of(chain, &listed, hook, &missing)].into(),
            ports: missing.into_iter().collect(),
        }))
    }

    /// The rules of a family as iptables has them.
    fn saved(&self, family: &str) -> Result<Option<&str>> {
        let (saved, program) = match family {
            "ip6" => (&self.saved[1], "ip6tables-nft-save"),
            _ => (&self.saved[0], "iptables-nft-save"),
        };
        let text = match saved.get() {
            Some(text) => text,
            None => {
                let text = printed(&self.host, &[program])?;
                saved.get_or_init(|| text)
            }
        };
        Ok(text.as_deref())
    }
}

/// All that nft(8) has; nothing where it is not installed. Blocks.
fn listed(host: &Host) -> Result<Value> {
    const LIST: [&str; 4] = ["nft", "-j", "list", "ruleset"];
    let text = printed(host, &LIST)?;
    let listed = text.map(|text| serde_json::from_str(&text)).transpose();
    Ok(listed
        .with_context(|| format!("`{}` printed no JSON", LIST.join(" ")))?
        .unwrap_or_default())
}

/// What a program prints; `None` where it is not installed, or the kernel has nothing that it could list.
fn printed(host: &Host, argv: &[&str]) -> Result<Option<String>> {
    match host.run(&Invocation::new(argv.iter().copied())) {
        Ok(text) => Ok(Some(text)),
        Err(CommandError::NotFound { .. }) => Ok(None),
        Err(CommandError::Failed { stderr, .. }) if stderr.contains("not supported") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether there are calls in a family of nftables', or in that of a program of iptables'. Of nftables' there are some for
/// other packets.
fn is_met((v4, v6): (bool, bool), family_or_program: &str) -> bool {
    match family_or_program {
        "inet" => true,
        v6_alone if v6_alone.starts_with("ip6") => v6,
        v4_alone => v4 && v4_alone.starts_with("ip"),
    }
}

fn objects<'a>(listing: &'a Value, kind: &str) -> impl Iterator<Item = &'a Value> {
    let all = listing["nftables"].as_array().into_iter().flatten();
    all.filter_map(move |object| object.get(kind))
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The ports of `wanted` that a chain of these rules drops; `None`: none.
fn missing(rules: &[Rule], chain: &str, policy_drops: bool, hook: Hook, wanted: &[u16]) -> Option<Vec<u16>> {
    let passes = |port: &u16| rule::passes(rules, chain, &Call::to(hook, *port)).unwrap_or(!policy_drops);
    let missing: Vec<u16> = wanted.iter().copied().filter(|port| !passes(port)).collect();
    (!missing.is_empty()).then_some(missing)
}

fn is_plain(rule: &Value) -> bool {
    !rule["expr"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|it| it.get("xt").is_some())
}

#[cfg(test)]
mod tests;
