//! `proxy routes`.

use std::collections::BTreeSet;

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::listeners::path_words;
use super::{chosen, json, origin, table};
use crate::cli::Output;
use crate::envoy::view::{Dump, RouteConfiguration, VirtualHost};

/// Domains of a virtual host that are shown.
const MOST_DOMAINS: usize = 2;

/// Route configurations by their name.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct Filter {
    /// Route configuration of this name, which is mostly a port.
    #[arg(long)]
    name: Option<String>,
}

impl Filter {
    pub(super) fn shown(&self, dump: &Dump, output: Output) -> Result<String> {
        match output {
            Output::Text => Ok(self.table(dump)),
            Output::Json => json(&self.chosen(dump).into_iter().map(|(_, it)| it).collect::<Vec<_>>()),
        }
    }

    pub(super) fn table(&self, dump: &Dump) -> String {
        let rows = self.chosen(dump).into_iter().flat_map(|(routes, _)| {
            let of_host = |host: &VirtualHost| of_host(&routes.name, host);
            routes.virtual_hosts.iter().flat_map(of_host).collect::<Vec<_>>()
        });
        let header = ["NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"];
        table(&header, rows)
    }

    fn chosen<'a>(&self, dump: &'a Dump) -> Vec<(RouteConfiguration, &'a Value)> {
        let mut found = chosen(&dump.routes, |routes: &RouteConfiguration| {
            self.name.as_ref().is_none_or(|name| routes.name == *name)
        });
        found.sort_by_cached_key(|(routes, _)| {
            let port: Option<u16> = routes.name.parse().ok();
            (port.is_none(), port)
        });
        found
    }
}

fn of_host(name: &str, host: &VirtualHost) -> Vec<Vec<String>> {
    let row =
        |matches: String, origin: String| vec![name.to_owned(), host.name.clone(), domains(host), matches, origin];
    if host.routes.is_empty() {
        return vec![row("/*".to_owned(), "404".to_owned())];
    }
    let passes = |cluster: Option<&str>| cluster == Some("PassthroughCluster");
    let routes = host.routes.iter();
    let routes = routes.filter(|route| !passes(route.route.as_ref().and_then(|it| it.cluster.as_deref())));
    routes
        .map(|route| row(path_words(&route.matches), origin(&route.metadata)))
        .collect()
}

/// The shortest names of a virtual host, without ports.
fn domains(host: &VirtualHost) -> String {
    if let [only] = host.domains.as_slice() {
        return only.clone();
    }
    let names: Vec<&str> = host.domains.iter().map(String::as_str).collect();
    let names: Vec<&str> = names
        .into_iter()
        .filter(|name| !name.contains(':') || name.ends_with(']'))
        .collect();
    let known: BTreeSet<&str> = names.iter().copied().collect();
    let is_long = |name: &str| {
        let short = [".svc.cluster.local", ".svc"]
            .iter()
            .filter_map(|end| name.strip_suffix(end));
        short.into_iter().any(|short| known.contains(short))
    };
    let names: Vec<&str> = names.into_iter().filter(|name| !is_long(name)).collect();
    match names.split_at_checked(MOST_DOMAINS) {
        Some((shown, more)) if !more.is_empty() => format!("{} + {} more...", shown.join(", "), more.len()),
        _ => names.join(", "),
    }
}
