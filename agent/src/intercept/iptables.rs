//! The iptables backend: Istio's ISTIO_* chains, for old kernels and for people who need them.
//!
//! Finds what is ours in the kernel, by name, in every variant that is installed (nft and legacy, IPv4 and
//! IPv6), whatever configuration it came from. Never asks a variant that has no table: asking makes one.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod iptables_save;
mod istio_leftovers;
mod render;
mod variant;

use std::collections::BTreeMap;

use anyhow::{Context, Result};

pub(super) use self::iptables_save::is_own;
use self::iptables_save::{MADE_TABLE, Saved, SavedTable, normal};
pub use self::istio_leftovers::IstioRules;
#[cfg(test)]
pub(super) use self::render::script;
pub(super) use self::variant::legacy_rules;
use self::variant::{FAMILIES, Variant};
use super::rules::{Family, Ruleset, Table};
use crate::facts::RulePackets;
use crate::host::Host;

/// The difference between what is there and what is wanted, as a diff; `None` when all is as wanted.
pub(super) fn plan(host: &Host, ruleset: &Ruleset) -> Result<Option<String>> {
    let mut there = String::new();
    let mut wanted = String::new();
    for family in families(host) {
        let present = match ruleset.is_empty() {
            true => variant::marked(host, family)?,
            false => variant::present(host, family)?,
        };
        for (variant, saved) in &present {
            for table in Table::ALL {
                let contents = saved.table(table.name()).map(SavedTable::contents);
                describe(&mut there, *variant, table, contents.unwrap_or_default());
            }
        }
        if ruleset.is_empty() {
            continue;
        }
        let target = variant::target(host, family, &present)?;
        for table in ruleset.tables() {
            let contents = render::contents(ruleset, table, family)
                .into_iter()
                .map(|(chain, rules)| {
                    let rules = rules.iter().map(|rule| normal(rule.split_whitespace()));
                    (chain, rules.collect())
                })
                .collect();
            describe(&mut wanted, target, table, contents);
        }
    }
    Ok(super::diff(&there, &wanted, "iptables"))
}

/// One line per chain, and one per rule.
fn describe(text: &mut String, variant: Variant, table: Table, contents: BTreeMap<String, Vec<String>>) {
    let head = format!("{} -t {}", variant.program(""), table.name());
    for (chain, rules) in contents {
        if is_own(&chain) {
            *text += &format!("{head} -N {chain}\n");
        }
        for rule in rules {
            *text += &format!("{head} -A {chain} {rule}\n");
        }
    }
}

/// Replaces whatever is ours by these rules: per family and table in one transaction, in one variant, then
/// takes them out of the other one.
pub(super) fn apply(host: &Host, ruleset: &Ruleset) -> Result<()> {
    for family in families(host) {
        let present = variant::present(host, family)?;
        let target = variant::target(host, family, &present)?;
        let none = Saved::default();
        let saved = present
            .iter()
            .find(|(variant, _)| *variant == target)
            .map_or(&none, |(_, saved)| saved);
        restore(host, target, &replacement(saved, ruleset, target))?;
        sweep(host, target, saved)?;
        for (variant, saved) in present.iter().filter(|(variant, _)| *variant != target) {
            remove(host, *variant, saved)?;
        }
    }
    Ok(())
}

/// Takes out all that is ours, in every variant and family.
pub(super) fn revert(host: &Host) -> Result<()> {
    let mut failures = Vec::new();
    for family in FAMILIES {
        for (variant, saved) in variant::marked(host, family)? {
            failures.extend(remove(host, variant, &saved).err().map(|error| format!("{error:#}")));
        }
    }
    anyhow::ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(())
}

/// Takes out what istio-iptables put into netfilter's own chains and no mark is on.
pub(super) fn remove_istio_leftovers(host: &Host, istio: &IstioRules) -> Result<()> {
    for (variant, saved) in everywhere(host)? {
        let mut script = String::new();
        for table in &saved.tables {
            let lines = table.removal_of(|rule| istio_leftovers::is_istios(&table.name, rule, istio));
            if !lines.is_empty() {
                script += &format!("*{}\n{}\nCOMMIT\n", table.name, lines.join("\n"));
            }
        }
        restore(host, variant, &script)?;
    }
    Ok(())
}

/// Deletes the tables of ours and Istio's kind that hold nothing and do nothing.
pub(super) fn sweep_bare(host: &Host) -> Result<()> {
    for (variant, saved) in everywhere(host)? {
        let bare = saved.tables.iter().filter(|table| table.is_bare());
        let bare: Vec<&str> = bare.map(|table| table.name.as_str()).collect();
        // A legacy table can't be deleted.
        if !variant.legacy && !bare.is_empty() {
            variant.delete(host, &bare)?;
        }
    }
    Ok(())
}

fn everywhere(host: &Host) -> Result<Vec<(Variant, Saved)>> {
    let mut found = Vec::new();
    for family in FAMILIES {
        found.extend(variant::present(host, family)?);
    }
    Ok(found)
}

/// Number of rules of ours in the kernel; `None` when there is no mark of ours at all.
pub(super) fn installed(host: &Host) -> Result<Option<usize>> {
    let mut found = None;
    for family in FAMILIES {
        for (_, saved) in variant::marked(host, family)? {
            if saved.has_marks() {
                found = Some(found.unwrap_or(0) + saved.own_rules());
            }
        }
    }
    Ok(found)
}

/// Packets that our rules have met, of both families.
pub(super) fn packets(host: &Host) -> Result<Vec<RulePackets>> {
    let mut found = Vec::new();
    for family in families(host) {
        found.extend(variant::packets(host, family)?);
    }
    Ok(found)
}

/// A kernel without IPv6 needs, and takes, no rules for it.
fn families(host: &Host) -> impl Iterator<Item = Family> {
    let v6 = host
        .meta("/proc/thread-self/net/if_inet6".as_ref())
        .is_ok_and(|found| found.is_some());
    FAMILIES.into_iter().filter(move |family| *family == Family::V4 || v6)
}

/// Restore input that takes ours out of each table and puts the rules in, in one `COMMIT` a table.
fn replacement(saved: &Saved, ruleset: &Ruleset, target: Variant) -> String {
    let mut script = String::new();
    for table in Table::ALL {
        let there = saved.table(table.name());
        let mut lines = there.map(SavedTable::removal).unwrap_or_default();
        let render::Lines { chains, rules } = render::lines(ruleset, table, target.family);
        if !rules.is_empty() {
            // A legacy table can't be deleted, so there is no use in a note that it is ours.
            if !target.legacy && there.is_none_or(SavedTable::is_made_by_us) {
                lines.push(format!("-N {MADE_TABLE}"));
            }
            lines.extend(chains.iter().map(|chain| format!("-N {chain}")));
            lines.extend(rules);
        }
        if !lines.is_empty() {
            script += &format!("*{}\n{}\nCOMMIT\n", table.name(), lines.join("\n"));
        }
    }
    script
}

fn remove(host: &Host, variant: Variant, saved: &Saved) -> Result<()> {
    if !saved.has_marks() {
        return Ok(());
    }
    restore(host, variant, &replacement(saved, &Ruleset::default(), variant))?;
    sweep(host, variant, saved)
}

fn restore(host: &Host, variant: Variant, script: &str) -> Result<()> {
    if script.is_empty() {
        return Ok(());
    }
    variant
        .call(host, "-restore", &["--noflush", "--wait=10"], script)
        .map(drop)
        .map_err(|error| variant::explained(error, script))
}

/// Deletes the tables that we made and that are empty now.
fn sweep(host: &Host, variant: Variant, before: &Saved) -> Result<()> {
    if !before.tables.iter().any(SavedTable::is_made_by_us) {
        return Ok(());
    }
    let Some(now) = variant.save(host)? else { return Ok(()) };
    let empty: Vec<&str> = before
        .tables
        .iter()
        .filter(|table| table.is_made_by_us())
        .map(|table| table.name.as_str())
        .filter(|name| now.table(name).is_some_and(SavedTable::is_bare))
        .collect();
    variant.delete(host, &empty).context("failed to delete empty tables")
}
