//! Redirection of the VM's traffic to Envoy and of its DNS to the agent.
//!
//! One rule model (`rules`, `capture`: pure) and two backends that carry it (`nftables`, `iptables`). Owns the
//! tables `inet istio_vm_agent` and `bridge istio_vm_agent` and the chains named ISTIO_*, which are also the marks it finds
//! them by. Publishes
//! `InterceptState`. Never touches another program's rules, routes or sysctls.

mod capture;
mod check;
mod firewall;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod inbound;
mod iptables;
mod istio;
mod membership;
mod metrics;
mod nftables;
mod openings;
mod part;
mod policy;
mod rules;
mod run;
mod sshd;
mod summary;
mod surroundings;
mod trace;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use prometheus_client::metrics::counter::Counter;

pub use self::capture::Bridge;
pub use self::firewall::Hook;
use self::firewall::{Listing, Target, Way};
use self::inbound::Inbound;
pub use self::iptables::IstioRules;
pub use self::istio::remove_istio;
pub(crate) use self::membership::envoy_ports;
use self::nftables::Family;
use self::nftables::Wall;
pub use self::part::InterceptPart;
pub use self::policy::Directions;
pub use self::rules::Ruleset;
pub use self::run::run;
use self::surroundings::{Surroundings, docker_bridge};
pub use self::trace::{Call, Exception, Rules, Trace, trace};
use crate::config::{Backend, Config, InterceptConfig, PathsConfig};
use crate::facts::{InterceptState, Membership, RulePackets};
use crate::host::change::{self, HostChange};
use crate::host::{Host, Read};
use crate::part::Site;

/// Consequence of a bridge without rules.
const OPEN_BRIDGE: &str = "other containers on the application's bridge reach it past Envoy";

/// True where the agent is to redirect.
pub fn is_wanted(site: &Site) -> bool {
    site.config.intercept.backend != Backend::None
}

/// Everything that interception needs to know beside the membership.
#[derive(Clone, Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// Backend and fail policy.
    pub config: InterceptConfig,
    /// The application's container, when it is on a bridge.
    pub bridge: Option<Bridge>,
    /// Where what is captured of calls to this VM is kept for its next boot.
    pub kept: PathBuf,
    /// Counts how often the rules were put right.
    pub repairs: Counter,
}

impl Options {
    /// Where the configuration can't be read.
    pub fn by_default(host: Host) -> Self {
        Self {
            host,
            config: InterceptConfig::default(),
            bridge: None,
            kept: PathsConfig::default().inbound(),
            repairs: Counter::default(),
        }
    }

    /// Takes the options out of the whole configuration.
    pub fn new(host: Host, config: &Config) -> Self {
        let ports: Vec<_> = config.workloads.published().copied().collect();
        let containers = config.workloads.containers();
        // The configuration is refused where those on one bridge differ.
        let cloud_identity = containers
            .filter(|it| !it.published().is_empty())
            .all(|it| it.cloud_identity);
        Self {
            bridge: (!ports.is_empty()).then(|| Bridge {
                interface: docker_bridge(&host),
                ports,
                cloud_identity,
            }),
            host,
            config: config.intercept.clone(),
            kept: config.paths.inbound(),
            repairs: Counter::default(),
        }
    }
}

/// Both directions' rules, as a change. Reads resolv.conf and asks the kernel which backend it takes; blocks.
///
/// # Errors
/// When resolv.conf can't be read, or no backend works.
pub fn change(membership: &Membership, options: &Options) -> Result<Box<dyn HostChange>> {
    Ok(Box::new(change_for(membership, options, Directions::BOTH)?))
}

/// The rules for calls to this VM alone, as a change: what closes it while there is no Envoy; blocks.
///
/// # Errors
/// When resolv.conf can't be read, or no backend works.
pub fn guard(membership: &Membership, options: &Options) -> Result<Box<dyn HostChange>> {
    Ok(Box::new(change_for(membership, options, Directions::INBOUND)?))
}

/// The rules for what was captured last of calls to this VM, before anything is known of the membership; `None` when
/// nothing ever was.
///
/// # Errors
/// When what is kept can't be used, and as those of `change`.
pub fn guard_as_before(options: &Options) -> Result<Option<Box<dyn HostChange>>> {
    let host = &options.host;
    let Some(inbound) = Inbound::load(host, &options.kept)? else {
        return Ok(None);
    };
    let ruleset = inbound.ruleset(options, &Surroundings::of(host)?);
    Ok(Some(Box::new(Interception::new(
        host,
        options.config.backend,
        ruleset,
    )?)))
}

/// The agent's own rules in either backend, found without any configuration: a change that wants none of them.
pub fn owned_rules() -> impl HostChange {
    OwnedRules
}

/// Tells whether rules of ours are in the kernel, of this agent or an earlier one; blocks for some 20 ms.
///
/// # Errors
/// When there are none where a look worked, and one failed.
pub fn present(host: &Host) -> Result<bool> {
    Ok(installed(host)?.is_some())
}

/// The tables and chains of ours that are in the kernel, each in words; blocks.
///
/// # Errors
/// When a backend can't be asked.
pub fn traces(host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for carrier in Carrier::ALL {
        let rules = carrier.installed(host);
        let rules = rules.with_context(|| format!("failed to look for {}", carrier.owned()))?;
        found.extend(rules.map(|rules| format!("{}, {rules} rules", carrier.owned())));
    }
    let wall =
        Wall::is_standing(host).then(|| format!("the nftables table {}, and an `nft` that holds it", Wall::TABLE));
    found.extend(wall);
    Ok(found)
}

/// Packets that the agent's rules in the kernel have met, of which `backend` has those for IP; blocks.
///
/// # Errors
/// When the backend can't be asked.
fn packets(host: &Host, backend: &str) -> Result<Vec<RulePackets>> {
    let mut found = match backend {
        "nftables" => nftables::packets(host, Family::Inet)?,
        "iptables" => iptables::packets(host)?,
        _ => return Ok(Vec::new()),
    };
    found.extend(nftables::packets(host, Family::Bridge)?);
    Ok(found)
}

/// The backend that has rules of ours, and their number.
///
/// # Errors
/// When one can't be asked, and no other has any.
fn installed(host: &Host) -> Result<Option<(Carrier, usize)>> {
    let mut failed = None;
    for carrier in Carrier::ALL {
        match carrier.installed(host) {
            Ok(Some(rules)) => return Ok(Some((carrier, rules))),
            Ok(None) => {}
            Err(error) => failed = failed.or(Some(error.context(format!("failed to look for {}", carrier.owned())))),
        }
    }
    failed.map_or(Ok(None), Err)
}

/// The state of our rules in the kernel, for `status` without a running agent; blocks for some 20 ms.
pub fn offline(host: &Host) -> InterceptState {
    Carrier::ALL
        .into_iter()
        .find_map(|carrier| {
            let rules = carrier.installed(host).ok().flatten()?;
            Some(InterceptState::Active {
                backend: carrier.name().to_owned(),
                rules,
                open_bridge: None,
            })
        })
        .unwrap_or_default()
}

/// The ports of these that a firewall of another program keeps closed to calls over IPv4, and over IPv6, and the commands
/// that open them; blocks.
///
/// # Errors
/// When a program doesn't list its rules.
pub fn closed_ports(
    host: &Host,
    hook: Hook,
    wanted: &[u16],
    families: (bool, bool),
) -> Result<(Vec<u16>, Vec<String>)> {
    let wanted: Vec<Target> = wanted.iter().copied().map(Target::redirected).collect();
    let closed = Listing::of(host, families)?.closed(Way::of(hook), &wanted)?;
    Ok(closed
        .map(|closed| (Vec::from_iter(closed.ports), Vec::from_iter(closed.remedies)))
        .unwrap_or_default())
}

/// Backend that would carry the rules.
#[derive(Debug)]
pub struct Usable {
    /// The backend.
    pub backend: &'static str,
    /// Why the application would be open to other containers that a bridge connects to it.
    pub open_bridge: Option<Arc<anyhow::Error>>,
}

/// The backend that would carry the rules, once the kernel has agreed to them; changes nothing, blocks.
///
/// # Errors
/// Like `change`.
pub fn usable(membership: &Membership, options: &Options) -> Result<Usable> {
    let change = change_for(membership, options, Directions::BOTH)?;
    change.carrier.check(&options.host, &change.ruleset)?;
    Ok(Usable {
        backend: change.carrier.name(),
        open_bridge: change.open_bridge(&options.host),
    })
}

fn change_for(membership: &Membership, options: &Options, directions: Directions) -> Result<Interception> {
    let host = &options.host;
    let surroundings = Surroundings::of(host)?;
    let ruleset = membership::ruleset(membership, options, &surroundings, directions);
    Interception::new(host, options.config.backend, ruleset)
}

/// A backend that works here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Carrier {
    Iptables,
    Nftables,
    /// The operator's own rules; of ours only the tables go, for ISTIO_* chains may be the operator's.
    None,
    /// nftables, for what a bridge passes on, which stands beside either of the others.
    Bridge,
}

impl Carrier {
    /// The backends that may have rules of ours.
    const ALL: [Self; 3] = [Self::Nftables, Self::Iptables, Self::Bridge];

    fn choose(host: &Host, backend: Backend, ruleset: &Ruleset) -> Result<Self> {
        match backend {
            Backend::None => Ok(Self::None),
            Backend::Iptables => Ok(Self::Iptables),
            Backend::Nftables => Ok(Self::Nftables),
            // What is in already, the kernel takes.
            Backend::Auto if nftables::carries(host, Family::Inet, ruleset).unwrap_or_default() => Ok(Self::Nftables),
            Backend::Auto => match nftables::check(host, Family::Inet, ruleset) {
                Ok(()) => Ok(Self::Nftables),
                Err(error) => {
                    tracing::warn!("nftables can't carry the rules, so iptables does: {error:#}");
                    Ok(Self::Iptables)
                }
            },
        }
    }

    /// Tells whether the kernel and its tools take these rules; changes nothing. iptables can't be asked so.
    fn check(self, host: &Host, ruleset: &Ruleset) -> Result<()> {
        match self {
            Self::Nftables => nftables::check(host, Family::Inet, ruleset),
            Self::Iptables => iptables::plan(host, ruleset).map(drop),
            Self::Bridge => nftables::check(host, Family::Bridge, ruleset),
            Self::None => Ok(()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Iptables => "iptables",
            Self::Nftables => "nftables",
            Self::Bridge => "bridge",
            Self::None => "none",
        }
    }

    /// The name of what of ours it has.
    fn owned(self) -> &'static str {
        match self {
            Self::Iptables => "the iptables chains ISTIO_*",
            Self::Bridge => "the nftables table istio_vm_agent of bridges",
            Self::Nftables | Self::None => "the nftables table istio_vm_agent",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::Iptables | Self::Bridge | Self::None => Self::Nftables,
            Self::Nftables => Self::Iptables,
        }
    }

    fn plan(self, host: &Host, ruleset: &Ruleset) -> Result<Option<String>> {
        match self {
            Self::Iptables => iptables::plan(host, ruleset),
            Self::Nftables => nftables::plan(host, Family::Inet, ruleset),
            Self::Bridge => nftables::plan(host, Family::Bridge, ruleset),
            Self::None => Ok(None),
        }
    }

    fn apply(self, host: &Host, ruleset: &Ruleset) -> Result<()> {
        match self {
            Self::Iptables => iptables::apply(host, ruleset),
            Self::Nftables => nftables::apply(host, Family::Inet, ruleset),
            Self::Bridge => nftables::apply(host, Family::Bridge, ruleset),
            Self::None => Ok(()),
        }
    }

    fn revert(self, host: &Host) -> Result<()> {
        match self {
            Self::Iptables => iptables::revert(host),
            Self::Nftables => nftables::revert(host, Family::Inet),
            Self::Bridge => nftables::revert(host, Family::Bridge),
            Self::None => Ok(()),
        }
    }

    fn installed(self, host: &Host) -> Result<Option<usize>> {
        match self {
            Self::Iptables => iptables::installed(host),
            Self::Nftables => nftables::installed(host, Family::Inet),
            Self::Bridge => nftables::installed(host, Family::Bridge),
            Self::None => Ok(None),
        }
    }
}

/// Rules in one backend, and none in the other.
#[derive(Debug)]
struct Interception {
    carrier: Carrier,
    ruleset: Ruleset,
    /// Why the kernel, or its tools, take no rules for bridges; `None`: they do. Asked once, for that starts a program.
    bridge_refusal: OnceLock<Option<Arc<anyhow::Error>>>,
}

impl Interception {
    fn new(host: &Host, backend: Backend, ruleset: Ruleset) -> Result<Self> {
        let carrier = Carrier::choose(host, backend, &ruleset)?;
        let ruleset = match carrier {
            Carrier::None => Ruleset::default(),
            _ => ruleset,
        };
        Ok(Self {
            carrier,
            ruleset,
            bridge_refusal: OnceLock::new(),
        })
    }

    /// Why other containers on the bridge reach the application although these rules are in: there are none for bridges, and
    /// what a bridge passes on doesn't meet those for IP either. `None`: they don't.
    fn open_bridge(&self, host: &Host) -> Option<Arc<anyhow::Error>> {
        if matches!(Carrier::Bridge.plan(host, &self.ruleset), Ok(None)) {
            return None;
        }
        let refusal = self.bridge_refusal(host)?;
        let meets_ip = |kind: &&str| {
            let switch = Path::new("/proc/sys/net/bridge").join(format!("bridge-nf-call-{kind}"));
            let text = host.read(&switch, Read::max(64).following_links());
            text.is_ok_and(|text| text.is_some_and(|text| text.trim() == "1"))
        };
        (!["iptables", "ip6tables"].iter().all(meets_ip)).then(|| Arc::clone(refusal))
    }

    fn bridge_refusal(&self, host: &Host) -> Option<&Arc<anyhow::Error>> {
        let ask = || Carrier::Bridge.check(host, &self.ruleset).err().map(Arc::new);
        self.bridge_refusal.get_or_init(ask).as_ref()
    }

    /// Rules that are missing or too much on the bridge; `None` where neither could be helped, for want of `nft` or of
    /// the kernel.
    fn plan_bridge(&self, host: &Host) -> Result<Option<String>> {
        let plan = Carrier::Bridge.plan(host, &self.ruleset)?;
        Ok(plan.filter(|_| self.bridge_refusal(host).is_none()))
    }
}

impl HostChange for Interception {
    fn name(&self) -> &'static str {
        "the interception rules"
    }

    fn plan(&self, host: &Host) -> Result<Option<String>> {
        let none = Ruleset::default();
        let parts = [
            self.carrier.plan(host, &self.ruleset)?,
            self.plan_bridge(host)?,
            self.carrier.other().plan(host, &none)?,
        ];
        let text: String = parts.into_iter().flatten().collect();
        Ok((!text.is_empty()).then_some(text))
    }

    /// The new rules go in before the other backend's go out: in between both are there, and whichever comes
    /// first sends a packet to the same place.
    fn apply(&self, host: &Host) -> Result<()> {
        self.carrier.apply(host, &self.ruleset)?;
        if let Err(error) = Carrier::Bridge.apply(host, &self.ruleset) {
            tracing::warn!("other containers on the bridge reach the application past Envoy: {error:#}");
        }
        self.carrier.other().revert(host)
    }

    fn revert(&self, host: &Host) -> Result<()> {
        OwnedRules.revert(host)
    }
}

/// No rules of ours, in no backend.
#[derive(Debug)]
struct OwnedRules;

impl HostChange for OwnedRules {
    fn name(&self) -> &'static str {
        "the interception rules"
    }

    fn plan(&self, host: &Host) -> Result<Option<String>> {
        let mut diff = None;
        for carrier in Carrier::ALL {
            if let Some(there) = carrier.plan(host, &Ruleset::default())? {
                diff.get_or_insert_with(String::new).push_str(&there);
            }
        }
        Ok(diff)
    }

    fn apply(&self, host: &Host) -> Result<()> {
        self.revert(host)
    }

    /// Each backend's are tried, and all failures told.
    fn revert(&self, host: &Host) -> Result<()> {
        let failures: Vec<String> = Carrier::ALL
            .into_iter()
            .rev()
            .filter_map(|carrier| Some(format!("{}: {:#}", carrier.owned(), carrier.revert(host).err()?)))
            .collect();
        anyhow::ensure!(failures.is_empty(), "failed to revert {}", failures.join("; "));
        Ok(())
    }
}

fn diff(there: &str, wanted: &str, name: &str) -> Option<String> {
    (there != wanted).then(|| change::diff(there, wanted, name))
}

#[cfg(test)]
mod tests;
