//! Variants of iptables: over nf_tables or legacy, IPv4 or IPv6.

use anyhow::{Result, anyhow};

use super::Family;
use super::iptables_save::{self, Saved};
use crate::facts::RulePackets;
use crate::host::{CommandError, FilterFamily, Host, Invocation, Read};

/// Longest list of a kernel's tables.
const MAX_BYTES: usize = 4 << 10;

pub(super) const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Variant {
    pub(super) family: Family,
    pub(super) legacy: bool,
}

impl Variant {
    /// `iptables-nft-save` for `-save`, `ip6tables-legacy` for nothing.
    pub(super) fn program(self, action: &str) -> String {
        let kind = if self.legacy { "legacy" } else { "nft" };
        format!("{}-{kind}{action}", command(self.family))
    }

    pub(super) fn call(
        self,
        host: &Host,
        action: &str,
        arguments: &[&str],
        stdin: &str,
    ) -> Result<String, CommandError> {
        let program = self.program(action);
        let argv = [program.as_str()].into_iter().chain(arguments.iter().copied());
        let call = Invocation::new(argv).with_stdin(stdin);
        if self.legacy {
            host.run_with_raw_sockets(&call)
        } else {
            host.run(&call)
        }
    }

    /// All tables that there are; `None` when the variant isn't installed.
    pub(super) fn save(self, host: &Host) -> Result<Option<Saved>> {
        Ok(self.text(host)?.as_deref().map(Saved::parse))
    }

    fn text(self, host: &Host) -> Result<Option<String>> {
        match self.call(host, "-save", &[], "") {
            Ok(text) => Ok(Some(text)),
            Err(CommandError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes empty tables. Only nf_tables can; iptables itself has no word for it, and without `nft` an empty
    /// table stays, which means nothing to any packet.
    pub(super) fn delete(self, host: &Host, tables: &[&str]) -> Result<()> {
        let family = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        let script: String = tables
            .iter()
            .map(|table| format!("delete table {family} {table}\n"))
            .collect();
        match host.run(&Invocation::new(["nft", "-f", "-"]).with_stdin(script)) {
            Ok(_) | Err(CommandError::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// True when asking it is safe: legacy iptables makes the tables it is asked about.
    fn is_in_use(self, host: &Host) -> Result<bool> {
        if !self.legacy {
            return Ok(true);
        }
        let names = match self.family {
            Family::V4 => "/proc/thread-self/net/ip_tables_names",
            Family::V6 => "/proc/thread-self/net/ip6_tables_names",
        };
        let names = host.read(names.as_ref(), Read::max(MAX_BYTES))?;
        Ok(names.is_some_and(|names| !names.trim().is_empty()))
    }
}

/// The variants that are installed and may have tables, with what they have.
pub(super) fn present(host: &Host, family: Family) -> Result<Vec<(Variant, Saved)>> {
    saved(host, family, &[false, true])
}

fn saved(host: &Host, family: Family, kinds: &[bool]) -> Result<Vec<(Variant, Saved)>> {
    let mut present = Vec::new();
    for &legacy in kinds {
        let variant = Variant { family, legacy };
        if variant.is_in_use(host)? {
            present.extend(variant.save(host)?.map(|saved| (variant, saved)));
        }
    }
    Ok(present)
}

/// Of these those that may have chains of ours: what is over nf_tables is asked only where the kernel has such a chain.
pub(super) fn marked(host: &Host, family: Family) -> Result<Vec<(Variant, Saved)>> {
    let in_kernel = match family {
        Family::V4 => FilterFamily::Ip,
        Family::V6 => FilterFamily::Ip6,
    };
    let chains = host.packet_filter().and_then(|kernel| kernel.chains(in_kernel));
    let has_none = chains.is_ok_and(|chains| !chains.iter().any(|chain| iptables_save::is_own(chain)));
    saved(host, family, if has_none { &[true] } else { &[false, true] })
}

/// All rules of the legacy kind, which nft(8) doesn't show: the program for them, and what its iptables-save(8) prints.
///
/// # Errors
/// When there are some, and the program that is installed for them doesn't list them.
pub(in crate::intercept) fn legacy_rules(host: &Host) -> Result<Vec<(String, String)>> {
    let mut rules = Vec::new();
    for variant in FAMILIES.map(|family| Variant { family, legacy: true }) {
        if variant.is_in_use(host)? {
            rules.extend(variant.text(host)?.map(|text| (variant.program(""), text)));
        }
    }
    Ok(rules)
}

/// The variant to put rules into: Docker's where it has any, because among hooks of one priority the variant
/// that was there first goes first, and no place within ours would come before Docker's; else the one that
/// `iptables` means on this machine.
pub(super) fn target(host: &Host, family: Family, present: &[(Variant, Saved)]) -> Result<Variant> {
    if let Some((variant, _)) = present.iter().find(|(_, saved)| saved.has_docker()) {
        return Ok(*variant);
    }
    let version = host
        .run(&Invocation::new([command(family), "--version"]))
        .map_err(|error| explained(error, ""))?;
    Ok(Variant {
        family,
        legacy: !version.contains("nf_tables"),
    })
}

/// Packets that our rules have met. Legacy iptables is not asked: that takes a unit of its own each time.
pub(super) fn packets(host: &Host, family: Family) -> Result<Vec<RulePackets>> {
    let variant = Variant { family, legacy: false };
    let name = match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    };
    match variant.call(host, "-save", &["--counters"], "") {
        Ok(text) => Ok(iptables_save::packets(&text, name)),
        Err(CommandError::NotFound { .. }) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

fn command(family: Family) -> &'static str {
    match family {
        Family::V4 => "iptables",
        Family::V6 => "ip6tables",
    }
}

/// The error, with the line that it is about, or with what to install.
pub(super) fn explained(error: CommandError, script: &str) -> anyhow::Error {
    match &error {
        CommandError::NotFound { .. } => anyhow!("{error}; install the package iptables, or set intercept.backend"),
        CommandError::Failed { stderr, .. } => match line_of(stderr, script) {
            Some(line) => anyhow!("{error} (the line is {line:?})"),
            None => error.into(),
        },
        CommandError::Io { .. } | CommandError::Unbounded { .. } => error.into(),
    }
}

/// `iptables-restore: line 3 failed`, `Error occurred at line: 3`.
fn line_of<'a>(stderr: &str, script: &'a str) -> Option<&'a str> {
    let mut words = stderr
        .split(|c: char| c.is_whitespace() || c == ':')
        .filter(|word| !word.is_empty());
    words.find(|word| *word == "line")?;
    let number: usize = words.next()?.parse().ok()?;
    script.lines().nth(number.checked_sub(1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refused_line_is_told() {
        let script = "*nat\n-N ISTIO_OUTPUT\nCOMMIT\n";
        for stderr in [
            "iptables-restore: line 2 failed: File exists.",
            "x\nError occurred at line: 2\nTry",
        ] {
            assert_eq!(line_of(stderr, script), Some("-N ISTIO_OUTPUT"));
        }
        assert_eq!(line_of("line 99 failed", script), None);
        assert_eq!(line_of("line 0 failed", script), None);
    }
}
