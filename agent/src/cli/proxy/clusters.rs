//! `proxy clusters`.

use anyhow::Result;
use clap::Args;

use super::{chosen, json, origin, table};
use crate::cli::Output;
use crate::envoy::view::{Cluster, Dump};

/// Clusters by what their names say, `direction|port|subset|host`.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct Filter {
    /// Clusters whose host has this in it.
    #[arg(long, value_name = "HOST")]
    fqdn: Option<String>,
    /// Clusters of this port.
    #[arg(long)]
    port: Option<u16>,
    /// Clusters of this subset.
    #[arg(long)]
    subset: Option<String>,
    /// `inbound` or `outbound`.
    #[arg(long)]
    direction: Option<String>,
}

impl Filter {
    pub(super) fn shown(&self, dump: &Dump, output: Output) -> Result<String> {
        match output {
            Output::Text => Ok(self.table(dump)),
            Output::Json => json(&self.chosen(dump).into_iter().map(|(_, it)| it).collect::<Vec<_>>()),
        }
    }

    pub(super) fn table(&self, dump: &Dump) -> String {
        let rows = self.chosen(dump).into_iter().map(|(cluster, _)| {
            let kind = cluster.kind.clone().unwrap_or_else(|| "STATIC".to_owned());
            let rule = origin(&cluster.metadata);
            match parts(&cluster.name) {
                Some([direction, port, subset, host]) => {
                    let subset = if subset.is_empty() { "-" } else { subset };
                    [host, port, subset, direction, &kind, &rule].map(str::to_owned).into()
                }
                None => [&*cluster.name, "-", "-", "-", &kind, &rule].map(str::to_owned).into(),
            }
        });
        let header = [
            "SERVICE FQDN",
            "PORT",
            "SUBSET",
            "DIRECTION",
            "TYPE",
            "DESTINATION RULE",
        ];
        table(&header, rows)
    }

    fn chosen<'a>(&self, dump: &'a Dump) -> Vec<(Cluster, &'a serde_json::Value)> {
        let has = |name: &str, part: &Option<String>| part.as_ref().is_none_or(|part| name.contains(part.as_str()));
        let mut found = chosen(&dump.clusters, |cluster: &Cluster| {
            let name = &cluster.name;
            [&self.fqdn, &self.subset, &self.direction]
                .iter()
                .all(|part| has(name, part))
                && self.port.is_none_or(|port| name.contains(&format!("|{port}|")))
        });
        // By host, subset and port, as istioctl has them.
        found.sort_by_cached_key(|(cluster, _)| match parts(&cluster.name) {
            Some([direction, port, subset, host]) => (
                host.to_owned(),
                subset.to_owned(),
                port.parse().unwrap_or(0),
                direction.to_owned(),
            ),
            None => (cluster.name.clone(), String::new(), 0u16, String::new()),
        });
        found
    }
}

/// Direction, port, subset and host of a cluster of istiod's.
fn parts(name: &str) -> Option<[&str; 4]> {
    name.split('|').collect::<Vec<_>>().try_into().ok()
}
