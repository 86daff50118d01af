//! Other programs' firewalls. What is redirected comes to their chains with the port that it is redirected to, which they
//! don't let pass because the one that was called is. Read only, and by what is plain: a set or a map by name is not
//! followed.

pub(super) mod ahead;
pub(super) mod behind;
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
    /// Chains that calls to the VM come to.
    Input,
    /// Chains that calls of the VM's programs come to. One that is redirected to loopback still leaves, as they see it,
    /// by the interface that it was for: no rule for `lo` lets it out (nf_nat_inet_fn routes anew only after the hook).
    Output,
    /// Chains that packets on lo come to: from programs to Envoy and the agent, from Envoy to the application.
    LoopbackInput,
    /// Chains that the same packets leave by.
    LoopbackOutput,
    /// Chains that calls of Envoy's come to, to other machines.
    Envoy,
    /// Chains that calls of the agent come to, to istiod and its CA.
    Agent,
}

impl Hook {
    /// Name of the hook in nft(8).
    fn name(self) -> &'static str {
        match self {
            Self::Input | Self::LoopbackInput => "input",
            Self::Output | Self::LoopbackOutput | Self::Envoy | Self::Agent => "output",
        }
    }

    /// True for calls to other machines, of which no address is known.
    fn leaves(self) -> bool {
        matches!(self, Self::Envoy | Self::Agent)
    }

    fn is_loopback(self) -> bool {
        matches!(self, Self::LoopbackInput | Self::LoopbackOutput)
    }
}

/// The way of packets to a port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way<'a> {
    pub(super) hook: Hook,
    /// The interface that they come by; `None`: any but lo.
    pub(super) by: Option<&'a str>,
}

impl Way<'_> {
    /// By any interface.
    pub(super) fn of(hook: Hook) -> Self {
        Self { hook, by: None }
    }

    fn call(self, target: Target, is_of_named: bool) -> Call {
        Call {
            hook: self.hook,
            udp: target.udp,
            from: rule::ANY,
            to: match self.hook {
                Hook::Envoy => rule::ANY,
                _ => target.port..=target.port,
            },
            by: self.by.map(str::to_owned),
            is_redirected: match self.hook {
                Hook::Output => true,
                Hook::LoopbackOutput | Hook::Envoy | Hook::Agent => false,
                Hook::Input | Hook::LoopbackInput => target.is_redirected,
            },
            is_of_named,
        }
    }
}

/// A port that packets are to come to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub(super) port: u16,
    pub(super) udp: bool,
    /// True where they were sent to another.
    pub(super) is_redirected: bool,
}

impl Target {
    /// A port that is called by TCP.
    pub(super) fn tcp(port: u16) -> Self {
        Self {
            port,
            udp: false,
            is_redirected: false,
        }
    }

    /// A port that calls by TCP to another one are redirected to.
    pub(super) fn redirected(port: u16) -> Self {
        Self {
            is_redirected: true,
            ..Self::tcp(port)
        }
    }

    /// A port that queries to another one are redirected to.
    pub(super) fn redirected_dns(port: u16) -> [Self; 2] {
        let tcp = Self::redirected(port);
        [tcp, Self { udp: true, ..tcp }]
    }
}

/// The ports that a firewall keeps closed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Closed {
    pub(super) ports: BTreeSet<u16>,
    /// The networks from which all of these are open all the same.
    pub(super) but_from: BTreeSet<String>,
    /// The commands that open them.
    pub(super) remedies: BTreeSet<String>,
}

impl Closed {
    /// Ports that both keep closed.
    fn and(mut self, other: Self) -> Self {
        self.ports.extend(other.ports);
        self.remedies.extend(other.remedies);
        match self.but_from.is_empty() || other.but_from.is_empty() {
            true => self.but_from.clear(),
            false => self.but_from.extend(other.but_from),
        }
        self
    }
}

/// Targets that a chain drops, of those that are asked for.
struct Missing {
    targets: Vec<Target>,
    but_from: BTreeSet<String>,
}

impl Missing {
    fn closed(self, remedy: String) -> Closed {
        Closed {
            ports: self.targets.iter().map(|target| target.port).collect(),
            but_from: self.but_from,
            remedies: [remedy].into(),
        }
    }
}

/// Rules of the VM as programs list them, asked once.
#[derive(Debug)]
pub(super) struct Listing {
    host: Host,
    /// True for IPv4, and for IPv6, when there are calls over it.
    families: (bool, bool),
    /// By nft(8), which has the rules of iptables over nf_tables too.
    nftables: Value,
    /// Output of iptables-save, of IPv4 and of IPv6, for what nft(8) can't say of them; `None` where the program is not
    /// installed.
    saved: [OnceCell<Option<String>>; 2],
    /// iptables' own tables, as each program lists them.
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
    pub(super) fn closed(&self, way: Way<'_>, wanted: &[Target]) -> Result<Option<Closed>> {
        let mut found = Vec::new();
        let is_asked = |chain: &&Value| chain["hook"] == way.hook.name() && chain["table"] != TABLE;
        for chain in objects(&self.nftables, "chain").filter(is_asked) {
            if is_met(self.families, word(&chain["family"])) {
                found.extend(self.closed_by(chain, way, wanted)?);
            }
        }
        for (program, saved) in &self.legacy {
            if is_met(self.families, program) {
                found.extend(iptables::closed(program, saved, way, wanted));
            }
        }
        Ok(found.into_iter().reduce(Closed::and))
    }

    fn closed_by(&self, chain: &Value, way: Way<'_>, wanted: &[Target]) -> Result<Option<Closed>> {
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
        let missing = missing(&rules, word(&chain["name"]), chain["policy"] == "drop", way, wanted);
        Ok(missing.map(|missing| {
            let remedy = remedy::of(chain, &listed, way, &missing.targets);
            missing.closed(remedy)
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

/// Output of a program; `None` where it is not installed, or the kernel has nothing that it could list.
fn printed(host: &Host, argv: &[&str]) -> Result<Option<String>> {
    match host.run(&Invocation::new(argv.iter().copied())) {
        Ok(text) => Ok(Some(text)),
        Err(CommandError::NotFound { .. }) => Ok(None),
        Err(CommandError::Failed { stderr, .. }) if stderr.contains("not supported") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// True when there are calls in a family of nftables', or in that of a program of iptables'. Of nftables' there are
/// some for other packets.
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

/// Targets of `wanted` that a chain of these rules drops; `None`: it drops none.
fn missing(rules: &[Rule], chain: &str, policy_drops: bool, way: Way<'_>, wanted: &[Target]) -> Option<Missing> {
    let passes = |call: &Call| rule::passes(rules, chain, call).unwrap_or(!policy_drops);
    let targets = wanted.iter().copied();
    let targets: Vec<Target> = targets.filter(|target| !passes(&way.call(*target, false))).collect();
    let of_named: Vec<Call> = targets.iter().map(|target| way.call(*target, true)).collect();
    let but_from = match of_named.iter().all(passes) {
        true => of_named
            .iter()
            .flat_map(|call| rule::networks(rules, call))
            .map(str::to_owned)
            .collect(),
        false => BTreeSet::new(),
    };
    (!targets.is_empty()).then_some(Missing { targets, but_from })
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
