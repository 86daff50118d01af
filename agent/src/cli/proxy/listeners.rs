//! `proxy listeners`.

use anyhow::Result;
use clap::Args;
use serde_json::Value;

use super::{chosen, json, table_with};
use crate::cli::Output;
use crate::envoy::view::{Dump, FilterChain, FilterChainMatch, Listener, RouteConfiguration, RouteMatch};

/// Listeners by their address, port and kind.
#[derive(Args, Debug, Default)]
pub(in crate::cli) struct Filter {
    /// Listeners of this address.
    #[arg(long)]
    address: Option<String>,
    /// Listeners of this port.
    #[arg(long)]
    port: Option<u16>,
    /// `HTTP`, `TCP` or `HTTP+TCP`.
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
}

impl Filter {
    pub(super) fn shown(&self, dump: &Dump, output: Output) -> Result<String> {
        match output {
            Output::Text => Ok(self.table(dump)),
            Output::Json => json(&self.chosen(dump).into_iter().map(|(_, it)| it).collect::<Vec<_>>()),
        }
    }

    pub(super) fn table(&self, dump: &Dump) -> String {
        let rows = self.chosen(dump).into_iter().flat_map(|(listener, _)| {
            let addresses: Vec<&str> = listener.addresses().map(|it| it.host()).collect();
            let chain = |chain: &FilterChain| {
                let (matches, to) = (match_words(&chain.filter_chain_match), destination(chain));
                vec![addresses.join(","), listener.port().to_string(), matches, to]
            };
            let mut rows: Vec<_> = listener.chains().map(chain).collect();
            rows.sort_by(|one, other| other[3].cmp(&one[3]));
            rows
        });
        table_with(1, &["ADDRESSES", "PORT", "MATCH", "DESTINATION"], rows)
    }

    fn chosen<'a>(&self, dump: &'a Dump) -> Vec<(Listener, &'a Value)> {
        let mut found = chosen(&dump.listeners, |listener: &Listener| {
            let is_at = |address: &String| listener.addresses().any(|it| it.host().eq_ignore_ascii_case(address));
            self.address.as_ref().is_none_or(is_at)
                && self.port.is_none_or(|port| listener.port() == port)
                && self
                    .kind
                    .as_ref()
                    .is_none_or(|it| it.eq_ignore_ascii_case(kind(listener)))
        });
        found.sort_by_cached_key(|(it, _)| (it.port(), it.address.host().to_owned(), kind(it)));
        found
    }
}

/// The kind of a listener in istioctl's words; the chain that drops what is sent to the listener itself is not counted.
fn kind(listener: &Listener) -> &'static str {
    let terminals: Vec<_> = listener.chains().filter_map(FilterChain::terminal).collect();
    let has_http = terminals.iter().any(|filter| filter.is_http());
    let has_tcp = terminals
        .iter()
        .any(|filter| filter.is_tcp() && filter.typed_config.cluster != "BlackHoleCluster");
    match (has_http, has_tcp) {
        (true, true) => "HTTP+TCP",
        (true, false) => "HTTP",
        (false, true) => "TCP",
        (false, false) => "UNKNOWN",
    }
}

/// The connections that a chain is for, in istioctl's words.
fn match_words(matches: &FilterChainMatch) -> String {
    let protocols: Vec<&str> = matches.application_protocols.iter().map(String::as_str).collect();
    let application = match protocols.as_slice() {
        [] => None,
        ["http/1.0", "http/1.1", "h2c"] => Some("App: HTTP".to_owned()),
        ["istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"] => Some("App: Istio HTTP Plain".to_owned()),
        [
            "http/1.0",
            "http/1.1",
            "h2c",
            "istio-http/1.0",
            "istio-http/1.1",
            "istio-h2",
        ] => Some("App: HTTP TLS".to_owned()),
        ["istio-peer-exchange", "istio"] => Some("App: TCP TLS".to_owned()),
        others => Some(format!("App: {}", others.join(","))),
    };
    let ranges = matches.prefix_ranges.iter();
    let ranges: Vec<String> = ranges
        .map(|range| format!("{}/{}", range.address_prefix, range.prefix_len))
        .collect();
    let port = matches.destination_port.map(|port| format!(":{port}"));
    let address = match (ranges.as_slice(), port) {
        ([], None) => None,
        ([], Some(port)) => Some(format!("Addr: *{port}")),
        (ranges, port) => Some(format!("Addr: {}{}", ranges.join(","), port.unwrap_or_default())),
    };
    let names = (!matches.server_names.is_empty()).then(|| format!("SNI: {}", matches.server_names.join(",")));
    let transport = (!matches.transport_protocol.is_empty()).then(|| format!("Trans: {}", matches.transport_protocol));
    let words: Vec<String> = [names, transport, application, address].into_iter().flatten().collect();
    match words.as_slice() {
        [] => "ALL".to_owned(),
        words => words.join("; "),
    }
}

/// The place that a chain's connections go to, in istioctl's words.
fn destination(chain: &FilterChain) -> String {
    let Some(filter) = chain.terminal() else {
        return "Non-HTTP/Non-TCP".to_owned();
    };
    let config = &filter.typed_config;
    match (filter.is_http(), &config.route_config, &config.rds) {
        (false, _, _) if config.cluster == "BlackHoleCluster" => "Non-HTTP/Non-TCP".to_owned(),
        (false, _, _) => cluster(&config.cluster),
        (true, Some(routes), _) => inline(routes),
        (true, None, Some(rds)) => format!("Route: {}", rds.route_config_name),
        (true, None, None) => "HTTP".to_owned(),
    }
}

fn cluster(name: &str) -> String {
    match name.contains("Cluster") {
        true => name.to_owned(),
        false => format!("Cluster: {name}"),
    }
}

fn inline(routes: &RouteConfiguration) -> String {
    if let [host] = routes.virtual_hosts.as_slice()
        && let ([domain], [route]) = (host.domains.as_slice(), host.routes.as_slice())
        && let (true, Some("/")) = (domain == "*", route.matches.prefix.as_deref())
        && let Some(name) = route.route.as_ref().and_then(|action| action.cluster.as_deref())
    {
        return cluster(name);
    }
    let hosts = routes.virtual_hosts.iter().map(|host| {
        let matches: Vec<String> = host.routes.iter().map(|route| path_words(&route.matches)).collect();
        match host.domains.as_slice() {
            [domain] if domain == "*" => matches.join(", "),
            domains => format!("{} {}", domains.join("/"), matches.join(", ")),
        }
    });
    format!("Inline Route: {}", hosts.collect::<Vec<_>>().join("; "))
}

/// The paths that a route is for, in istioctl's words.
pub(super) fn path_words(matches: &RouteMatch) -> String {
    let words = [
        matches.prefix.as_ref().map(|prefix| format!("{prefix}*")),
        matches
            .path_separated_prefix
            .as_ref()
            .map(|prefix| format!("PathPrefix:{prefix}")),
        matches.path.clone(),
        matches
            .safe_regex
            .as_ref()
            .map(|regex| format!("regex {}", regex.regex)),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}
