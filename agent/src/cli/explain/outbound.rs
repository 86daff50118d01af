//! A call of this VM: Envoy's listener and filter chain for it. Pure.

use std::net::IpAddr;

use super::call::Call;
use super::cause::Cause;
use super::chain::{Chain, LISTENER};
use super::proxy::refusal;
use super::route::{self, Routed};
use super::service_ports::wrong_port;
use super::state::{Envoy, State};
use super::upstream;
use crate::envoy::view::{FilterChain, Listener, WeightedCluster};

pub(super) fn explain(state: &State, envoy: &Envoy, call: &Call<'_>, chain: &mut Chain) {
    let Some(listener) = listener(envoy, call) else {
        unserved(state, envoy, call, chain);
        return;
    };
    let Some(filters) = chain_of(listener, call) else {
        chain.fault(
            LISTENER,
            Cause::NoListener,
            format!("{} has no filter chain for this call", listener.name),
            "`istio-vm-agent proxy listeners` shows those it has",
        );
        return;
    };
    let Some(terminal) = filters.terminal() else {
        chain.note(
            LISTENER,
            format!("{}: neither HTTP nor TCP, which is not followed", listener.name),
        );
        return;
    };
    let config = &terminal.typed_config;
    if terminal.is_tcp() {
        let one = (!config.cluster.is_empty()).then(|| WeightedCluster {
            name: config.cluster.clone(),
            weight: 1,
        });
        let several = config.weighted_clusters.iter().flat_map(|it| it.clusters.clone());
        let clusters: Vec<WeightedCluster> = one.into_iter().chain(several).collect();
        if is_black_hole(&clusters) {
            registry_only(call, chain);
            return;
        }
        chain.ok(LISTENER, format!("{}, TCP", listener.name));
        upstream::explain_all(state, envoy, &clusters, chain);
        return;
    }
    chain.ok(LISTENER, format!("{}, HTTP", listener.name));
    match route::explain(state, envoy, filters, call, chain) {
        Some(Routed::To(clusters)) if is_black_hole(&clusters) => registry_only(call, chain),
        Some(Routed::To(clusters)) => upstream::explain_all(state, envoy, &clusters, chain),
        Some(Routed::Passed) => passed(envoy, call, chain),
        None => {}
    }
}

/// The listener that the original destination leads to: the address's own, else that of all addresses on the port.
fn listener<'a>(envoy: &'a Envoy, call: &Call<'_>) -> Option<&'a Listener> {
    let of_port = |listener: &&Listener| listener.port() == call.port && listener.traffic_direction == "OUTBOUND";
    let at = |address: &str| {
        let mut all = envoy.listeners.iter().filter(of_port);
        all.find(|listener| listener.addresses().any(|it| it.host() == address))
    };
    let any = match call.address {
        IpAddr::V4(_) => "0.0.0.0",
        IpAddr::V6(_) => "::",
    };
    at(&call.address.to_string()).or_else(|| at(any))
}

/// The chain for the call: of those whose addresses and names fit, an HTTP one if there is any.
fn chain_of<'a>(listener: &'a Listener, call: &Call<'_>) -> Option<&'a FilterChain> {
    let fits = |chain: &&FilterChain| {
        let matches = &chain.filter_chain_match;
        let in_range = matches.prefix_ranges.iter().any(|range| {
            let prefix = range.address_prefix.parse().ok();
            let network = prefix.and_then(|ip: IpAddr| ipnet::IpNet::new(ip, range.prefix_len).ok());
            network.is_some_and(|network| network.contains(&call.address))
        });
        let is_named = matches.server_names.iter().any(|name| {
            let suffix = name.strip_prefix('*');
            name == call.host || Some(name.as_str()) == call.service || suffix.is_some_and(|it| call.host.ends_with(it))
        });
        (matches.prefix_ranges.is_empty() || in_range) && (matches.server_names.is_empty() || is_named)
    };
    let is_http = |chain: &&FilterChain| chain.terminal().is_some_and(|filter| filter.is_http());
    let mut fitting: Vec<&FilterChain> = listener.chains().filter(fits).collect();
    // The stricter match gets the connection.
    fitting.sort_by_key(|chain| std::cmp::Reverse(chain.filter_chain_match.prefix_ranges.len()));
    fitting
        .iter()
        .find(|it| is_http(it))
        .or_else(|| fitting.first())
        .copied()
}

/// No listener is for the call's address and port.
fn unserved(state: &State, envoy: &Envoy, call: &Call<'_>, chain: &mut Chain) {
    let Some(service) = call.service else {
        passed(envoy, call, chain);
        return;
    };
    let is_about = |message: &str| message.starts_with("Listener") || message.contains(&format!("_{}", call.port));
    if let Some(message) = refusal(state, envoy, is_about) {
        chain.fault(
            LISTENER,
            Cause::Nack,
            format!(
                "none for {}:{}, because Envoy refused it: {message}",
                call.address, call.port
            ),
            "mend what the message names: an EnvoyFilter, or a version of Istio that this Envoy doesn't fit",
        );
        return;
    }
    wrong_port(envoy, call, service, chain);
}

/// The step of a call to somebody whom the mesh doesn't know.
fn passed(envoy: &Envoy, call: &Call<'_>, chain: &mut Chain) {
    let rest = envoy
        .listeners
        .iter()
        .find(|listener| listener.name == "virtualOutbound");
    let chains = rest.into_iter().flat_map(Listener::chains);
    let mut open = chains.filter(|chain| chain.filter_chain_match.destination_port.is_none());
    let terminal = open.find_map(FilterChain::terminal);
    match terminal.map(|filter| filter.typed_config.cluster.as_str()) {
        Some("BlackHoleCluster") | None => registry_only(call, chain),
        Some(cluster) => {
            chain.note(
                LISTENER,
                format!(
                    "{}:{} is not of the mesh: Envoy passes it on as it is ({cluster})",
                    call.address, call.port
                ),
            );
            upstream::reached(envoy, cluster, chain);
        }
    }
}

fn is_black_hole(clusters: &[WeightedCluster]) -> bool {
    clusters.iter().all(|cluster| cluster.name == "BlackHoleCluster") && !clusters.is_empty()
}

fn registry_only(call: &Call<'_>, chain: &mut Chain) {
    chain.fault(
        LISTENER,
        Cause::RegistryOnly,
        format!(
            "{}:{} is not of the mesh, which lets nothing else out (outboundTrafficPolicy REGISTRY_ONLY)",
            call.address, call.port
        ),
        format!("add a ServiceEntry for {}, port {}", call.host, call.port),
    );
}
