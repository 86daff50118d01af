//! The route of a request: virtual host, match, and what it does. Pure.

use serde_json::Value;

use super::call::Call;
use super::cause::Cause;
use super::chain::Chain;
use super::proxy::refusal;
use super::route_match::{fits, words};
use super::service_ports::{ports_of, wrong_port};
use super::state::{Envoy, State};
use super::truth::Truth;
use crate::envoy::view::{FilterChain, Route, RouteConfiguration, VirtualHost, WeightedCluster};

const ROUTE: &str = "route";
/// Name under which a route configures the filter of faults.
const FAULT_FILTER: &str = "envoy.filters.http.fault";

/// The end of the way through the routes.
#[derive(Debug)]
pub(super) enum Routed {
    /// To clusters.
    To(Vec<WeightedCluster>),
    /// To nobody of the mesh.
    Passed,
}

/// The route of the call in an HTTP connection manager; `None` where it ends here.
pub(super) fn explain(
    state: &State,
    envoy: &Envoy,
    filters: &FilterChain,
    call: &Call<'_>,
    chain: &mut Chain,
) -> Option<Routed> {
    let config = &filters.terminal()?.typed_config;
    let name = config.rds.as_ref().map(|rds| rds.route_config_name.as_str());
    let by_name = |name: &str| envoy.routes.iter().find(|routes| routes.name == name);
    let Some(routes) = config.route_config.as_ref().or_else(|| by_name(name?)) else {
        missing(state, envoy, name.unwrap_or_default(), chain);
        return None;
    };
    let Some(host) = virtual_host(routes, call) else {
        unnamed(routes, call, chain);
        return None;
    };
    // What istiod has for all that is not of the mesh.
    match (host.name.as_str(), call.service) {
        ("allow_any" | "block_all", Some(service)) => {
            match ports_of(envoy, service).contains(&call.port) {
                true => unnamed(routes, call, chain),
                false => wrong_port(envoy, call, service, chain),
            }
            return None;
        }
        ("allow_any" | "block_all", None) => return Some(Routed::Passed),
        _ => {}
    }
    let route = chosen(host, call, chain)?;
    faults(filters, route, chain);
    action(host, route, chain)
}

/// The first route that is for the call's request; those before it that may be are told of.
fn chosen<'a>(host: &'a VirtualHost, call: &Call<'_>, chain: &mut Chain) -> Option<&'a Route> {
    let judged = host.routes.iter().map(|route| (route, fits(&route.matches, call)));
    let judged: Vec<_> = judged.filter(|(_, truth)| *truth != Truth::No).collect();
    let at = judged.iter().position(|(_, truth)| *truth == Truth::Yes);
    let possible = judged.iter().take(at.unwrap_or(judged.len()));
    let possible: Vec<String> = possible.map(|(route, _)| words(&route.matches)).collect();
    let more = "`explain HOST:PORT/PATH?QUERY --header NAME=VALUE` says more of the request";
    match (at, possible.is_empty()) {
        (Some(_), false) => chain.note(
            ROUTE,
            format!("may go by another route first: {}; {more}", possible.join("; ")),
        ),
        (Some(_), true) => {}
        (None, false) => chain.suspect(
            ROUTE,
            Cause::NoRoute,
            format!(
                "virtual host {} has routes for some requests alone: {}",
                host.name,
                possible.join("; ")
            ),
            more,
        ),
        (None, true) => {
            let all: Vec<String> = host.routes.iter().map(|route| words(&route.matches)).collect();
            chain.fault(
                ROUTE,
                Cause::NoRoute,
                format!(
                    "virtual host {} has no route for {}, only for {}: Envoy answers 404",
                    host.name,
                    call.path.unwrap_or("/"),
                    all.join("; ")
                ),
                "add a match or a route without one to the VirtualService",
            );
        }
    }
    judged.get(at?).map(|(route, _)| *route)
}

fn unnamed(routes: &RouteConfiguration, call: &Call<'_>, chain: &mut Chain) {
    chain.fault(
        ROUTE,
        Cause::NoVirtualHost,
        format!(
            "routes {} have no virtual host for {}:{}",
            routes.name, call.host, call.port
        ),
        "call the service by a name that the VirtualService or Service has (`istio-vm-agent proxy routes`)",
    );
}

fn missing(state: &State, envoy: &Envoy, name: &str, chain: &mut Chain) {
    let is_about = |message: &str| message.starts_with("RouteConfiguration") || message.contains(name);
    match refusal(state, envoy, is_about) {
        Some(message) => chain.fault(
            ROUTE,
            Cause::Nack,
            format!("routes {name} are not there, because Envoy refused them: {message}"),
            "mend the VirtualService or EnvoyFilter that the message names",
        ),
        None => chain.fault(
            ROUTE,
            Cause::RouteMissing,
            format!("Envoy has no routes {name}: istiod has not sent them"),
            "`istio-vm-agent status` says whether istiod is reached",
        ),
    }
}

/// The virtual host that Envoy chooses: by the exact name, then the longest `*.suffix`, then the longest `prefix.*`,
/// then `*`.
fn virtual_host<'a>(routes: &'a RouteConfiguration, call: &Call<'_>) -> Option<&'a VirtualHost> {
    let address = call.address.to_string();
    let mut names = vec![call.host.to_owned(), format!("{}:{}", call.host, call.port)];
    if call.host == address && address.contains(':') {
        names.push(format!("[{address}]"));
    }
    let rank = |domain: &str| {
        let is = |fits: &dyn Fn(&str) -> bool| names.iter().any(|name| fits(name));
        if domain == "*" {
            return Some((1, 0));
        }
        if let Some(suffix) = domain.strip_prefix('*') {
            return is(&|name| name.ends_with(suffix)).then_some((3, suffix.len()));
        }
        if let Some(prefix) = domain.strip_suffix('*') {
            return is(&|name| name.starts_with(prefix)).then_some((2, prefix.len()));
        }
        is(&|name| name.eq_ignore_ascii_case(domain)).then_some((4, 0))
    };
    let best = |host: &&VirtualHost| host.domains.iter().filter_map(|domain| rank(domain)).max();
    let all = routes.virtual_hosts.iter().filter(|host| best(host).is_some());
    all.max_by_key(best)
}

/// Faults that the mesh's configuration injects, on the route or for all.
fn faults(filters: &FilterChain, route: &Route, chain: &mut Chain) {
    let of_route = route.typed_per_filter_config.get(FAULT_FILTER);
    let of_all = filters.all_filters().filter(|filter| filter.name == FAULT_FILTER);
    let of_all: Vec<_> = of_all.map(|filter| &filter.typed_config).collect();
    let part = |key: &str| {
        let of_all = || {
            of_all.iter().find_map(|it| {
                if key == "abort" {
                    it.abort.as_ref()
                } else {
                    it.delay.as_ref()
                }
            })
        };
        of_route.and_then(|it| it.get(key)).or_else(of_all)
    };
    if let Some(abort) = part("abort") {
        let (share, is_all) = percentage(&abort["percentage"]);
        let status = abort.get("http_status").or_else(|| abort.get("grpc_status"));
        let evidence = format!(
            "{share} of the requests are answered with {} on purpose",
            status.unwrap_or(&Value::Null)
        );
        let remedy = "take `fault.abort` out of the VirtualService";
        match is_all {
            true => chain.fault(ROUTE, Cause::FaultAbort, evidence, remedy),
            false => chain.suspect(ROUTE, Cause::FaultAbort, evidence, remedy),
        }
    }
    if let Some(delay) = part("delay") {
        let (share, _) = percentage(&delay["percentage"]);
        let wait = delay["fixed_delay"].as_str().unwrap_or("some time");
        chain.suspect(
            ROUTE,
            Cause::FaultDelay,
            format!("{share} of the requests wait {wait} on purpose"),
            "take `fault.delay` out of the VirtualService",
        );
    }
}

/// A share in words (envoy.type.v3.FractionalPercent), and whether it is all.
fn percentage(value: &Value) -> (String, bool) {
    let part = value["numerator"].as_f64().unwrap_or(0.0);
    let of = match value["denominator"].as_str() {
        Some("TEN_THOUSAND") => 10_000.0,
        Some("MILLION") => 1_000_000.0,
        _ => 100.0,
    };
    (format!("{} %", 100.0 * part / of), part >= of)
}

fn action(host: &VirtualHost, route: &Route, chain: &mut Chain) -> Option<Routed> {
    let place = format!("virtual host {}, route {}", host.name, words(&route.matches));
    if let Some(answer) = &route.direct_response {
        let evidence = format!("{place}: Envoy itself answers {}", answer.status);
        match answer.status {
            400.. => chain.fault(
                ROUTE,
                Cause::DirectResponse,
                evidence,
                "take `directResponse` out of the VirtualService; with a 500 or 503, see whether its destination's subset \
                 or port exists",
            ),
            _ => chain.note(ROUTE, evidence),
        }
        return None;
    }
    if let Some(redirect) = &route.redirect {
        let to = ["host_redirect", "path_redirect", "prefix_rewrite"]
            .iter()
            .filter_map(|key| redirect[*key].as_str());
        let to: String = to.collect();
        chain.suspect(
            ROUTE,
            Cause::Redirect,
            format!("{place}: the caller is told to go to {to}"),
            "take `redirect` out of the VirtualService, or call that",
        );
        return None;
    }
    let Some(action) = &route.route else {
        chain.note(
            ROUTE,
            format!("{place}: neither a cluster nor an answer, which is not followed"),
        );
        return None;
    };
    let clusters = action.clusters();
    let total: u32 = clusters
        .iter()
        .map(|cluster| cluster.weight)
        .fold(0, u32::saturating_add);
    let shares: Vec<String> = match clusters.as_slice() {
        [only] => vec![only.name.clone()],
        all => all
            .iter()
            .map(|it| format!("{} ({} of {total})", it.name, it.weight))
            .collect(),
    };
    let timeout = match action.timeout.as_deref() {
        None | Some("0s") => String::new(),
        Some(timeout) => format!(", at the longest {timeout}"),
    };
    chain.ok(ROUTE, format!("{place}: to {}{timeout}", shares.join(", ")));
    Some(Routed::To(
        clusters.into_iter().filter(|cluster| cluster.weight > 0).collect(),
    ))
}
