//! From a name to addresses, as a program on this VM finds them. Pure.

use std::net::IpAddr;

use super::cause::Cause;
use super::chain::Chain;
use super::state::{Agent, Resolver, State};
use crate::dns;
use crate::facts::NameTable;

const NAME: &str = "name";
/// Likeness of two names (Jaro and Winkler's, 1 for the same) above which one is taken for a slip of the other.
const NEAR: f64 = 0.85;

/// The addresses of a host, the first one the one that is called.
pub(super) fn addresses(resolver: &Resolver, namespace: &str, host: &str) -> Vec<IpAddr> {
    if let Ok(address) = host.parse() {
        return vec![address];
    }
    if !resolver.hosts.is_empty() {
        return resolver.hosts.clone();
    }
    in_mesh(resolver, namespace, host)
}

fn in_mesh(resolver: &Resolver, namespace: &str, host: &str) -> Vec<IpAddr> {
    let table = resolver.table.as_ref();
    table.map_or_else(Vec::new, |table| dns::lookup(table, namespace, host, &resolver.search))
}

/// The mesh's service that has this address, by its full name.
pub(super) fn service(table: Option<&NameTable>, address: IpAddr) -> Option<&str> {
    let mut of_it = table?.names.iter().filter(|(_, info)| info.ips.contains(&address));
    of_it.next().map(|(name, _)| name.as_str())
}

/// Steps from the name to an address, which is returned; `None` where it comes to none.
pub(super) fn explain(state: &State, host: &str, chain: &mut Chain) -> Option<IpAddr> {
    let State { resolver, vm, .. } = state;
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    let mesh = in_mesh(resolver, &vm.namespace, host);
    let found = addresses(resolver, &vm.namespace, host);
    let Some(address) = found.first().copied() else {
        unknown(state, host, chain);
        return None;
    };
    if !resolver.hosts.is_empty() {
        match mesh.is_empty() || mesh.contains(&address) {
            true => chain.ok(NAME, format!("{host} is {address}, by /etc/hosts")),
            false => chain.fault(
                NAME,
                Cause::HostsFile,
                format!(
                    "/etc/hosts says that {host} is {address}, and the mesh that it is {}",
                    mesh[0]
                ),
                format!("take the line of {host} out of /etc/hosts"),
            ),
        }
        return Some(address);
    }
    match asked(state) {
        Ok(evidence) => {
            let service = service(resolver.table.as_ref(), address).unwrap_or(host);
            chain.ok(NAME, format!("{host} is {service}, {address}, {evidence}"));
        }
        Err((cause, evidence, remedy)) => chain.fault(
            NAME,
            cause,
            format!("{host} is {address} in the mesh, and {evidence}"),
            remedy,
        ),
    }
    Some(address)
}

/// The way of a program's query to the agent, or why it doesn't come there.
fn asked(state: &State) -> Result<String, (Cause, String, String)> {
    let State { resolver, rules, .. } = state;
    if !resolver.captured {
        return Err((
            Cause::DnsNotCaptured,
            "programs ask the name servers of /etc/resolv.conf, which don't know it".to_owned(),
            "set ISTIO_META_DNS_CAPTURE=true in the mesh's proxyMetadata, or call it by its address".to_owned(),
        ));
    }
    if resolver.past_dns {
        return Err((
            Cause::ForeignResolver,
            "programs ask systemd-resolved past DNS (`resolve` in /etc/nsswitch.conf)".to_owned(),
            "`istio-vm-agent check --only IVA702` gives the line that mends it".to_owned(),
        ));
    }
    if let Ok(rules) = rules {
        // Rules that are gone are told of in their own step.
        let queries = resolver.servers.iter().zip(&rules.traces);
        let foreign = queries.into_iter().find(|(_, trace)| trace.redirected.is_none());
        if let (Some((server, _)), true) = (foreign, rules.difference.is_empty()) {
            return Err((
                Cause::ForeignResolver,
                format!("queries to {server} of /etc/resolv.conf go past the agent"),
                "take the server out of /etc/resolv.conf, or `systemctl restart istio-vm-agent` to capture it"
                    .to_owned(),
            ));
        }
    }
    if resolver.servers.is_empty() {
        return Err((
            Cause::ForeignResolver,
            "/etc/resolv.conf names no server whose queries could be captured".to_owned(),
            "name any server there: queries for the mesh's names never leave this VM".to_owned(),
        ));
    }
    match resolver.served {
        true => Ok("answered by the agent".to_owned()),
        false => Err((
            Cause::DnsDown,
            "nobody answers the queries that are sent to port 15053".to_owned(),
            "`systemctl restart istio-vm-agent`, and see `istio-vm-agent status`".to_owned(),
        )),
    }
}

fn unknown(state: &State, host: &str, chain: &mut Chain) {
    let Agent { xds, silent, .. } = &state.agent;
    let Some(table) = &state.resolver.table else {
        let why = silent.as_ref().or(xds.last_error.as_ref());
        let why = why.map(|why| format!(" ({why})"));
        chain.fault(
            NAME,
            Cause::UnknownName,
            format!("the agent has no names from istiod yet{}", why.unwrap_or_default()),
            "`istio-vm-agent status` says what keeps istiod away",
        );
        return;
    };
    let names = table.names.keys().map(String::as_str);
    let near = names.map(|name| (strsim::jaro_winkler(host, short(name, host)), name));
    let near = near.filter(|(likeness, _)| *likeness > NEAR);
    let near = near.max_by(|one, other| one.0.total_cmp(&other.0));
    let near = near.map(|(_, name)| format!("; the nearest is {name}"));
    let is_like_one = near.is_some() || !host.contains('.') || host.contains(".svc");
    let evidence = format!(
        "{host} is none of the {} names of the mesh, nor in /etc/hosts{}",
        table.names.len(),
        near.unwrap_or_default()
    );
    match is_like_one {
        true => chain.fault(
            NAME,
            Cause::UnknownName,
            evidence,
            "is the name right, has the namespace to be added (NAME.NAMESPACE), and is the Service exported to this VM's \
             namespace (exportTo, Sidecar)?",
        ),
        false => chain.suspect(
            NAME,
            Cause::UnknownName,
            format!("{evidence}; the name servers of /etc/resolv.conf, which were not asked, may know it"),
            format!("`getent ahosts {host}` asks them: explain the address that it gives"),
        ),
    }
}

/// The beginning of a full name, of as many labels as `host` has.
fn short<'a>(name: &'a str, host: &str) -> &'a str {
    let dots = host.matches('.').count();
    let end = name.match_indices('.').nth(dots).map_or(name.len(), |(at, _)| at);
    &name[..end]
}
