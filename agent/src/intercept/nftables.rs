//! The nftables backend: one table for both families of IP, replaced in one transaction, removed as one object; and one for
//! bridges, which stands beside the iptables backend, too.
//!
//! Its NAT chains hook in five before Docker's and iptables' (-100), so whichever program starts first, ours
//! decide first; and a connection that has a NAT binding from us is not looked at by later ones.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod render;

use anyhow::{Result, anyhow};

use self::render::Fingerprint;
use super::rules::{Rule, Ruleset, Table};
use crate::facts::RulePackets;
use crate::host::{CommandError, Fed, FilterFamily, Host, Invocation};

pub(super) const TABLE: &str = "istio_vm_agent";

/// Where a table of that name is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Family {
    /// IP of both versions.
    Inet,
    /// Frames that a bridge passes on.
    Bridge,
}

impl Family {
    fn of(table: Table) -> Self {
        match table {
            Table::Bridge => Self::Bridge,
            Table::Mangle | Table::Nat | Table::Raw => Self::Inet,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Inet => "inet",
            Self::Bridge => "bridge",
        }
    }

    fn in_kernel(self) -> FilterFamily {
        match self {
            Self::Inet => FilterFamily::Inet,
            Self::Bridge => FilterFamily::Bridge,
        }
    }

    /// Takes the table out, also where it isn't there: `delete` alone would fail then.
    fn removal(self) -> String {
        let table = format!("table {} {TABLE}", self.name());
        format!("add {table}\ndelete {table}\n")
    }
}

/// The same drops once more, in a table that nobody but its maker may change (linux 5.12: NFT_TABLE_F_OWNER), `nft flush
/// ruleset` included. It goes with the process that made it, so it is not where the guarantee stands, but what holds it
/// while the other table is being put back.
const WALL: &str = "istio_vm_agent_wall";

/// The process that has made the wall.
#[derive(Debug)]
pub(super) struct Wall {
    nft: Fed,
    script: String,
    /// True when the kernel was seen to have taken it: the program says nothing.
    seen: bool,
}

impl Wall {
    /// Name of the wall's table in the kernel.
    pub(super) const TABLE: &str = WALL;

    /// Tells whether there is one, whoever holds it.
    pub(super) fn is_standing(host: &Host) -> bool {
        let asked = host
            .packet_filter()
            .and_then(|kernel| kernel.table(FilterFamily::Inet, WALL));
        asked.map_or_else(
            |_| {
                host.run(&Invocation::new(["nft", "list", "table", "inet", WALL]))
                    .is_ok()
            },
            |table| table.is_some(),
        )
    }

    /// Makes the wall, or has it follow the rules; `None` when they drop nothing.
    pub(super) fn keep(wall: Option<Self>, host: &Host, ruleset: &Ruleset) -> std::io::Result<Option<Self>> {
        if !ruleset.tables().any(|table| table == Table::Mangle) {
            return Ok(None);
        }
        let script = render::wall(ruleset);
        let standing = wall.and_then(|mut wall| wall.nft.is_running().then_some(wall));
        let mut wall = match standing {
            Some(wall) => wall,
            None => Self {
                nft: host.feed(&Invocation::new(["nft", "-i"]))?,
                script: String::new(),
                seen: false,
            },
        };
        if !wall.seen && wall.script == script {
            wall.look(host);
        }
        if wall.script != script {
            wall.nft.send(&script)?;
            wall.script = script;
            wall.seen = false;
        }
        Ok(Some(wall))
    }

    /// Looks for what was sent a while ago; it is sent again where it is not there.
    fn look(&mut self, host: &Host) {
        self.seen = Self::is_standing(host);
        if !self.seen {
            tracing::debug!("the kernel has no second table of drops: it may be older than 5.12");
            self.script.clear();
        }
    }
}

/// The difference between what is there and what is wanted, as a diff; `None` when all is as wanted.
pub(super) fn plan(host: &Host, family: Family, ruleset: &Ruleset) -> Result<Option<String>> {
    let wanted = render::table(ruleset, family);
    let there = match there(host, family)? {
        there if is_as(there.as_ref(), &wanted) => return Ok(None),
        None => return Ok(super::diff("", &wanted, "nftables")),
        Some(_) => list(host, family, &["--stateless"])?.unwrap_or_default(),
    };
    let wanted = respelled(host, family, &wanted).unwrap_or(wanted);
    Ok(super::diff(&there, &wanted, "nftables"))
}

/// A table as the kernel spells it, from a network namespace of its own; `None` where this process may make none.
fn respelled(host: &Host, family: Family, table: &str) -> Option<String> {
    let script = format!("nft -f - && exec nft --stateless list table {} {TABLE}", family.name());
    let argv = ["unshare", "--net", "--", "sh", "-c", &script];
    host.run(&Invocation::new(argv).with_stdin(table)).ok()
}

/// Tells whether these very rules are in the kernel.
pub(super) fn carries(host: &Host, family: Family, ruleset: &Ruleset) -> Result<bool> {
    Ok(is_as(there(host, family)?.as_ref(), &render::table(ruleset, family)))
}

/// The kernel's text differs from ours in form, so they are compared by what we know of both: the hash that we left in the
/// table's comment, and the number of rules in each chain.
fn is_as(there: Option<&Fingerprint>, wanted: &str) -> bool {
    match there {
        None => wanted.is_empty(),
        Some(there) => !wanted.is_empty() && *there == render::fingerprint(wanted),
    }
}

/// Replaces whatever is ours by these rules, in one transaction.
pub(super) fn apply(host: &Host, family: Family, ruleset: &Ruleset) -> Result<()> {
    let wanted = render::table(ruleset, family);
    if wanted.is_empty() {
        return revert(host, family);
    }
    load(host, &[], &(family.removal() + &wanted))
}

/// Deletes the table.
pub(super) fn revert(host: &Host, family: Family) -> Result<()> {
    match there(host, family)? {
        Some(_) => load(host, &[], &family.removal()),
        None => Ok(()),
    }
}

/// Packets that the rules in the kernel have met, in their order.
pub(super) fn packets(host: &Host, family: Family) -> Result<Vec<RulePackets>> {
    let text = list(host, family, &[])?.unwrap_or_default();
    Ok(render::packets(&text, family))
}

/// A rule, as `nft` writes it.
pub(super) fn text(rule: &Rule) -> String {
    render::line(rule)
}

/// Tells whether `nft` and the kernel take these very rules; changes nothing.
pub(super) fn check(host: &Host, family: Family, ruleset: &Ruleset) -> Result<()> {
    match render::table(ruleset, family) {
        none if none.is_empty() => Ok(()),
        table => load(host, &["-c"], &(family.removal() + &table)),
    }
}

/// Number of rules of ours in the kernel; `None` when the table isn't there.
pub(super) fn installed(host: &Host, family: Family) -> Result<Option<usize>> {
    Ok(there(host, family)?.map(|table| table.rules()))
}

/// The table as the kernel has it; `None` when it isn't there. Where the kernel can't be asked, `nft` is.
fn there(host: &Host, family: Family) -> Result<Option<Fingerprint>> {
    let asked = host
        .packet_filter()
        .and_then(|kernel| kernel.table(family.in_kernel(), TABLE));
    match asked {
        Ok(table) => Ok(table.map(Fingerprint::from)),
        Err(_) => Ok(list(host, family, &[])?.map(|text| render::fingerprint(&text))),
    }
}

/// The table's text, as `nft` has it of the kernel; `None` when it isn't there, or there is no `nft` that could have made it.
fn list(host: &Host, family: Family, options: &[&str]) -> Result<Option<String>> {
    let argv = ["nft"].into_iter().chain(options.iter().copied());
    match host.run(&Invocation::new(argv.chain(["list", "table", family.name(), TABLE]))) {
        Ok(text) => Ok(Some(text)),
        Err(CommandError::NotFound { .. }) => Ok(None),
        // A kernel that supports no such tables has none.
        Err(CommandError::Failed { stderr, .. })
            if ["No such file or directory", "not supported"]
                .iter()
                .any(|it| stderr.contains(it)) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn load(host: &Host, options: &[&str], script: &str) -> Result<()> {
    let argv = ["nft"].into_iter().chain(options.iter().copied()).chain(["-f", "-"]);
    // nft quotes the line that it refuses.
    match host.run(&Invocation::new(argv).with_stdin(script)) {
        Ok(_) => Ok(()),
        Err(error @ CommandError::NotFound { .. }) => Err(anyhow!(
            "{error}; install the package nftables, or set intercept.backend"
        )),
        Err(error) => Err(error.into()),
    }
}
