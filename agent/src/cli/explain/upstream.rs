//! The cluster that a call goes to: limits, TLS, endpoints. Pure.

use super::access_log::LastError;
use super::cause::Cause;
use super::chain::Chain;
use super::proxy::{self, refusal};
use super::state::{Envoy, State};
use crate::envoy::view::{Cluster, ClusterStatus, HostStatus, LbEndpoint, WeightedCluster};

const CLUSTER: &str = "cluster";
const TLS: &str = "tls";
const LIMITS: &str = "limits";
const ENDPOINTS: &str = "endpoints";
/// Envoy's own limit where none is told (envoy.config.cluster.v3.CircuitBreakers).
const DEFAULT_LIMIT: u64 = 1024;
/// Endpoints that are named.
const MOST_NAMED: usize = 4;

pub(super) fn explain_all(state: &State, envoy: &Envoy, clusters: &[WeightedCluster], chain: &mut Chain) {
    for cluster in clusters {
        explain(state, envoy, &cluster.name, chain);
    }
}

fn explain(state: &State, envoy: &Envoy, name: &str, chain: &mut Chain) {
    let Some(cluster) = envoy.clusters.iter().find(|cluster| cluster.name == name) else {
        missing(state, envoy, name, chain);
        return;
    };
    let kind = cluster.kind.as_deref().unwrap_or("STATIC");
    chain.ok(CLUSTER, format!("{name}, {kind}"));
    let (found, all) = (status(envoy, name), endpoints(envoy, name));
    let is_mtls = tls(cluster, &all, found, chain);
    if is_mtls {
        proxy::certificate(state, envoy, chain);
    }
    if let Some(found) = found {
        limits(cluster, found, chain);
    }
    if kind != "ORIGINAL_DST" {
        let remedy = remedy(state.question.error.as_ref(), is_mtls);
        hosts(state, name, found, &remedy, chain);
    }
}

/// Remedy where no connection comes about, by the reason that Envoy's access log has, where it was read.
fn remedy(error: Option<&LastError>, is_mtls: bool) -> String {
    if error.is_some_and(LastError::is_refused) {
        return "a machine is there and refuses the port: start what is to listen there, on that address".to_owned();
    }
    let certificate = match is_mtls {
        true => ", and does its certificate have the name above",
        false => "",
    };
    let log = match error {
        Some(_) => "",
        None => " Envoy's access log has the reason (`istio-vm-agent explain --last-error`)",
    };
    format!("is it up, does a NetworkPolicy or a firewall keep this VM out{certificate}?{log}")
}

fn status<'a>(envoy: &'a Envoy, name: &str) -> Option<&'a ClusterStatus> {
    envoy.statuses.iter().find(|it| it.name == name)
}

fn endpoints<'a>(envoy: &'a Envoy, name: &str) -> Vec<&'a LbEndpoint> {
    let of_it = envoy.endpoints.iter().filter(|it| it.cluster_name == name);
    of_it.flat_map(|assignment| assignment.all()).collect()
}

fn missing(state: &State, envoy: &Envoy, name: &str, chain: &mut Chain) {
    let is_about = |message: &str| message.starts_with("Cluster") || message.contains(name);
    match refusal(state, envoy, is_about) {
        Some(message) => chain.fault(
            CLUSTER,
            Cause::Nack,
            format!("{name} is not there, because Envoy refused it: {message}"),
            "mend the DestinationRule or EnvoyFilter that the message names",
        ),
        None => chain.fault(
            CLUSTER,
            Cause::NoCluster,
            format!("{name} is not there: Envoy answers 503"),
            "the route names a subset or a port that no DestinationRule or Service has",
        ),
    }
}

/// The step that says how Envoy and the endpoints speak; true where mTLS is spoken.
fn tls(cluster: &Cluster, all: &[&LbEndpoint], found: Option<&ClusterStatus>, chain: &mut Chain) -> bool {
    let mtls = all.iter().filter(|it| it.takes_mtls()).count();
    let plain = all.len() - mtls;
    let by_match = cluster
        .transport_socket_matches
        .iter()
        .find(|it| it.name == "tlsMode-istio");
    if let Some(by_match) = by_match {
        let names = by_match.transport_socket.expected_names();
        let names = match names.is_empty() {
            true => "any of the mesh".to_owned(),
            false => names.join(" or "),
        };
        match (mtls, plain) {
            (0, 0) => {}
            (0, _) => chain.ok(TLS, "plaintext, as no endpoint takes Istio's mTLS"),
            (_, 0) => chain.ok(TLS, format!("mTLS; endpoints have to be {names}")),
            (with, without) => chain.ok(
                TLS,
                format!("mTLS to {with} endpoints, which have to be {names}, plaintext to {without}"),
            ),
        }
        return mtls > 0;
    }
    let socket = cluster.transport_socket.as_ref().filter(|socket| socket.is_tls());
    let is_istios = socket.is_some_and(|socket| socket.typed_config.sni.starts_with("outbound_"));
    match socket {
        Some(_) if is_istios && mtls == 0 && plain > 0 => {
            let has_failed = found.is_some_and(|it| it.sum("cx_connect_fail") > 0);
            let evidence =
                "a DestinationRule has Envoy speak mTLS (ISTIO_MUTUAL), and no endpoint is known to have a proxy";
            let remedy = "set the DestinationRule's tls.mode to DISABLE, or put the endpoints into the mesh";
            match has_failed {
                true => chain.fault(TLS, Cause::MtlsToPlaintext, evidence, remedy),
                false => chain.suspect(TLS, Cause::MtlsToPlaintext, evidence, remedy),
            }
        }
        Some(socket) => {
            let names = socket.expected_names().join(" or ");
            chain.ok(
                TLS,
                format!("TLS to {}; endpoints have to be {names}", socket.typed_config.sni),
            );
        }
        None if mtls > 0 => chain.suspect(
            TLS,
            Cause::PlaintextToMtls,
            "a DestinationRule has Envoy speak plaintext to endpoints that take mTLS: those that are STRICT refuse it",
            "set the DestinationRule's tls.mode to ISTIO_MUTUAL, or take it out",
        ),
        None => chain.ok(TLS, "plaintext"),
    }
    is_istios
}

/// Circuit breakers that are open now.
fn limits(cluster: &Cluster, found: &ClusterStatus, chain: &mut Chain) {
    let mut thresholds = cluster.circuit_breakers.thresholds.iter();
    let Some(limits) = thresholds.find(|it| it.priority.as_deref().is_none_or(|priority| priority == "DEFAULT")) else {
        return;
    };
    let open = [
        ("connections", limits.max_connections, "cx_active", "maxConnections"),
        ("requests", limits.max_requests, "rq_active", "http2MaxRequests"),
        (
            "waiting requests",
            limits.max_pending_requests,
            "rq_pending_active",
            "http1MaxPendingRequests",
        ),
    ]
    .into_iter()
    .find_map(|(what, limit, stat, key)| {
        let (limit, active) = (limit.unwrap_or(DEFAULT_LIMIT), found.sum(stat));
        (active >= limit).then_some((what, limit, active, key))
    });
    if let Some((what, limit, active, key)) = open {
        chain.fault(
            LIMITS,
            Cause::CircuitOpen,
            format!("{active} {what} of at most {limit}: Envoy answers more with 503 (UO)"),
            format!("raise connectionPool.{key} of the DestinationRule, or have fewer calls at once"),
        );
    }
}

fn hosts(state: &State, name: &str, found: Option<&ClusterStatus>, remedy: &str, chain: &mut Chain) {
    let all: &[HostStatus] = found.map(|it| it.host_statuses.as_slice()).unwrap_or_default();
    if all.is_empty() {
        chain.fault(
            ENDPOINTS,
            Cause::NoEndpoint,
            format!("{name} has none: Envoy answers 503 (UH)"),
            "does the Service's selector fit pods or WorkloadEntries that are ready? `kubectl get endpoints` says",
        );
        return;
    }
    let is_healthy = |host: &&HostStatus| {
        let health = &host.health_status;
        ["", "HEALTHY", "UNKNOWN"].contains(&health.eds_health_status.as_str()) && !health.failed_active_health_check
    };
    let healthy: Vec<&HostStatus> = all.iter().filter(is_healthy).collect();
    let is_in = |host: &&&HostStatus| !host.health_status.failed_outlier_check;
    let usable: Vec<&HostStatus> = healthy.iter().filter(is_in).copied().collect();
    if healthy.is_empty() {
        chain.fault(
            ENDPOINTS,
            Cause::EndpointsUnhealthy,
            format!(
                "istiod says that none of {} is healthy: {}",
                all.len(),
                named(&all.iter().collect::<Vec<_>>())
            ),
            "see the readiness probes of these pods and VMs",
        );
    } else if usable.is_empty() {
        chain.fault(
            ENDPOINTS,
            Cause::Ejected,
            format!(
                "Envoy has ejected all {}, for their errors: {}",
                healthy.len(),
                named(&healthy)
            ),
            "they come back by themselves (outlierDetection.baseEjectionTime): see why they failed, in their own logs",
        );
    } else {
        connections(state, all.len(), &usable, remedy, chain);
    }
}

/// The step of connections to the endpoints in use. One that is swallowed is on its way for long, and counts as open.
fn connections(state: &State, all: usize, usable: &[&HostStatus], remedy: &str, chain: &mut Chain) {
    let fails = |host: &&&HostStatus| {
        let (failed, made) = (host.stat("cx_connect_fail"), host.stat("cx_total"));
        failed > 0 && (failed >= made || host.is_tried_in_vain()) || bridge(state, host).is_some()
    };
    let failing: Vec<&HostStatus> = usable.iter().filter(fails).copied().collect();
    let Some(bridge) = failing.first().map(|host| bridge(state, host)) else {
        let in_use = format!("{} of {all} are in use: {}", usable.len(), named(usable));
        chain.ok(ENDPOINTS, in_use);
        return;
    };
    let (way, remedy) = match bridge {
        Some(bridge) => (
            format!("; the kernel sends what is for them to {bridge}, a bridge of this VM"),
            format!(
                "give that bridge another network, or take out its route (`ip route get {}`)",
                failing[0].address.host()
            ),
        ),
        None => (String::new(), remedy.to_owned()),
    };
    let (count, named) = (usable.len(), named(&failing));
    if failing.len() == count {
        let evidence = format!("no connection has come about to any of {count}: {named}{way}");
        chain.fault(ENDPOINTS, Cause::Unreachable, evidence, remedy);
    } else {
        let evidence = format!(
            "no connection has come about to {} of {count}: {named}{way}",
            failing.len()
        );
        chain.suspect(ENDPOINTS, Cause::Unreachable, evidence, remedy);
    }
}

/// The bridge of this VM that an endpoint is beyond.
fn bridge<'a>(state: &'a State, host: &HostStatus) -> Option<&'a str> {
    let address = host.address.host().parse().ok()?;
    let bridge = state.bridged.get(&address)?;
    host.is_tried_in_vain().then_some(bridge)
}

fn named(hosts: &[&HostStatus]) -> String {
    let shown: Vec<String> = hosts.iter().take(MOST_NAMED).map(|host| host.endpoint()).collect();
    match hosts.len().saturating_sub(MOST_NAMED) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The step of hosts that Envoy calls at the address that the caller means.
pub(super) fn reached(envoy: &Envoy, name: &str, chain: &mut Chain) {
    if let Some(found) = status(envoy, name) {
        let failed = found.sum("cx_connect_fail");
        if failed > 0 {
            chain.note(
                ENDPOINTS,
                format!("{failed} connections of {name} have failed, to whomever"),
            );
        }
    }
}
