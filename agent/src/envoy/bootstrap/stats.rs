//! The stats that Envoy keeps, and the regexes that take their names apart into tags.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::node;
use crate::facts::Membership;

/// The tags before the mesh's own, each with its name and the regex that finds it.
const TAGS: [(&str, &str); 9] = [
    ("cluster_name", r"^cluster(\.(.+);)"),
    (
        "http_conn_manager_prefix",
        r"^http\.(((?:[_.[:digit:]\w]*|[_\[\]aAbBcCdDeEfF[:digit:]\w\:]*));\.)",
    ),
    ("thread_name", r"^server(\.(.+))\.watchdog"),
    ("tcp_prefix", r"^tcp\.((.*?)\.)\w+?$"),
    ("response_code", r"_rq(_(\d{3}))$"),
    ("response_code_class", r"_rq(_(\dxx))$"),
    (
        "http_conn_manager_listener_prefix",
        r"^listener(?=\.).*?\.http\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "listener_address",
        r"^listener\.(((?:[_.[:digit:]]*|[_\[\]aAbBcCdDeEfF[:digit:]]*))\.)",
    ),
    (
        "mongo_prefix",
        r"^mongo\.(.+?)\.(collection|cmd|cx_|op_|delays_|decoding_)(.*?)$",
    ),
];
/// The tags after the mesh's own.
const LAST_TAGS: [(&str, &str); 7] = [
    ("cache", r"(cache\.(.+?)\.)"),
    ("component", r"(component\.(.+?)\.)"),
    ("tag", r"(tag\.(.+?);\.)"),
    ("wasm_filter", r"(wasm_filter\.(.+?)\.)"),
    ("authz_enforce_result", r"rbac(\.(allowed|denied))"),
    ("authz_dry_run_action", r"(\.istio_dry_run_(allow|deny)_)"),
    ("authz_dry_run_result", r"(\.shadow_(allowed|denied))"),
];
/// The prefixes that Istio always keeps (istio/pkg/bootstrap/config.go).
const PREFIXES: [&str; 5] = [
    "cluster_manager",
    "listener_manager",
    "server",
    "cluster.xds-grpc",
    "wasm",
];
/// The suffixes that Istio always keeps, and the two gauges that `lifecycle::drain` watches. Istio keeps the first of
/// these only with EXIT_ON_ZERO_ACTIVE_CONNECTIONS, and without it waits a fixed time.
const SUFFIXES: [&str; 6] = [
    "rbac.allowed",
    "rbac.denied",
    "shadow_allowed",
    "shadow_denied",
    "downstream_cx_active",
    "downstream_rq_active",
];
/// The regexes that Istio always keeps.
const REGEXES: [&str; 1] = [r"vhost\..*\.route\..*"];

pub(super) fn config(membership: &Membership) -> Value {
    json!({
        "use_all_default_tags": false,
        "stats_tags": tags(membership),
        "stats_matcher": { "inclusion_list": { "patterns": patterns(membership) } },
    })
}

fn tags(membership: &Membership) -> Vec<Value> {
    let tag = |name: &str, regex: &str| json!({ "tag_name": name, "regex": regex });
    let mut extra = strings(membership.proxy_config.0.get("extraStatTags"));
    let mut seen = BTreeSet::from([String::new()]);
    extra.retain(|name| seen.insert(name.clone()));
    let first = TAGS.iter().map(|(name, regex)| tag(name, regex));
    let extra = extra.iter().map(|name| tag(name, &format!(r"({name}=\.=(.*?);\.;)")));
    let last = LAST_TAGS.iter().map(|(name, regex)| tag(name, regex));
    first.chain(extra).chain(last).collect()
}

fn patterns(membership: &Membership) -> Vec<Value> {
    let prefix = |text: &str| json!({ "prefix": text });
    let mut patterns = vec![prefix("reporter=")];
    if node::metadata_discovery(membership) {
        patterns.push(prefix("workload_discovery"));
    }
    let chosen = |field: &str, always: &[&str]| chosen(membership, field, always);
    patterns.extend(chosen("inclusionPrefixes", &PREFIXES).iter().map(|text| prefix(text)));
    patterns.extend(
        chosen("inclusionSuffixes", &SUFFIXES)
            .iter()
            .map(|text| json!({ "suffix": text })),
    );
    patterns.extend(
        chosen("inclusionRegexps", &REGEXES)
            .iter()
            .map(|text| json!({ "safe_regex": { "regex": text } })),
    );
    patterns.extend([prefix("component"), prefix("istio")]);
    patterns
}

/// The patterns of the operator's `proxyStatsMatcher`, then those that are always kept; `{pod_ip}` stands for each of
/// the VM's addresses.
fn chosen(membership: &Membership, field: &str, always: &[&str]) -> Vec<String> {
    let matcher = membership.proxy_config.0.get("proxyStatsMatcher");
    let mut chosen = Vec::new();
    for pattern in strings(matcher.and_then(|matcher| matcher.get(field))) {
        if pattern.contains("{pod_ip}") {
            let ips = membership.instance_ips.iter();
            chosen.extend(ips.map(|ip| pattern.replace("{pod_ip}", &ip.to_string())));
        } else {
            chosen.push(pattern);
        }
    }
    chosen.extend(always.iter().map(|text| (*text).to_owned()));
    chosen
}

fn strings(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter()
        .flatten()
        .filter_map(|item| Some(item.as_str()?.to_owned()))
        .collect()
}
