//! All of a host that the agent may change, as text: to be the same after as before.

use std::fs;
use std::os::unix::fs::MetadataExt;

use anyhow::{Context, Result, ensure};

use crate::network::{EtcView, Host, Network};

/// A host's state, one section a source.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Snapshot(Vec<(String, String)>);

/// Without counters (`-s`): those are no change of the agent's.
const SOURCES: [&[&str]; 9] = [
    &["nft", "-s", "list", "ruleset"],
    &["iptables-nft-save"],
    &["ip6tables-nft-save"],
    &["iptables-legacy-save"],
    &["ip6tables-legacy-save"],
    &["ip", "rule"],
    &["ip", "-6", "rule"],
    &["ip", "route", "show", "table", "all"],
    &["ip", "-6", "route", "show", "table", "all"],
];

impl Snapshot {
    /// Takes it.
    pub fn of(network: &Network, host: Host, view: EtcView) -> Result<Self> {
        let file = network.hosts_file(host, view);
        let text = fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        let meta = fs::metadata(&file)?;
        let owner = format!("{:o} {}:{}\n{text}", meta.mode(), meta.uid(), meta.gid());
        let mut sections = vec![("hosts".to_owned(), owner)];
        for source in SOURCES {
            let text = network.run(host, source[0], &source[1..])?;
            let lines = text.lines().filter(|line| !is_noise(line)).map(without_counters);
            sections.push((source.join(" "), lines.collect::<Vec<_>>().join("\n")));
        }
        Ok(Self(sections))
    }

    /// An error that shows what differs.
    pub fn expect_same(&self, after: &Self) -> Result<()> {
        for ((name, before), (_, after)) in self.0.iter().zip(&after.0) {
            ensure!(
                before == after,
                "{name} differs\n--- before\n{before}\n--- after\n{after}"
            );
        }
        Ok(())
    }
}

/// Comments with the time of day, and what the kernel gives to Docker's bridge with its first container.
fn is_noise(line: &str) -> bool {
    let of_the_bridge = line.contains("dev docker0") && (line.contains("fe80::") || line.contains("ff00::"));
    line.starts_with('#') || of_the_bridge
}

/// `:INPUT ACCEPT [12:3456]` counts packets.
fn without_counters(line: &str) -> String {
    let counted = line.starts_with(':').then(|| line.rsplit_once(" [")).flatten();
    counted.map_or(line, |(rule, _)| rule).to_owned()
}
