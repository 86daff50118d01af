//! Authorization: which policy lets a caller in, or keeps it out. Pure.

use std::net::IpAddr;

use serde_json::Value;

use super::cause::Cause;
use super::chain::Chain;
use super::truth::{self, Truth};
use crate::envoy::view::{Condition, FilterChain, Policy, Rbac};

const AUTHORIZATION: &str = "authorization";

/// A request to this VM, as far as it is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Request<'a> {
    pub(super) port: u16,
    pub(super) path: Option<&'a str>,
    pub(super) peer: Option<IpAddr>,
    /// `spiffe://…`.
    pub(super) principal: Option<&'a str>,
    /// True where the caller is known to have no certificate.
    pub(super) plaintext: bool,
}

/// The step of a request through the RBAC filters of a chain.
pub(super) fn explain(filters: &FilterChain, request: &Request<'_>, chain: &mut Chain) {
    let all = filters.all_filters().filter(|filter| filter.is_rbac());
    let rules: Vec<&Rbac> = all.filter_map(|filter| filter.typed_config.rules.as_ref()).collect();
    if rules.is_empty() {
        chain.ok(AUTHORIZATION, "no policy is in force: every caller may");
        return;
    }
    let mut unsure = Vec::new();
    for rbac in rules {
        let judged: Vec<(&String, Truth)> = rbac
            .policies
            .iter()
            .map(|(name, it)| (name, judge(it, request)))
            .collect();
        let with = |wanted: Truth| {
            judged
                .iter()
                .filter(move |(_, truth)| *truth == wanted)
                .map(|(name, _)| policy(name))
        };
        if rbac.denies() {
            if let Some(name) = with(Truth::Yes).next() {
                denied(format!("{name} denies it"), chain);
                return;
            }
            unsure.extend(with(Truth::Unknown).map(|name| format!("{name} may deny it")));
        } else if rbac.allows() && with(Truth::Yes).next().is_none() {
            let possible: Vec<String> = with(Truth::Unknown).collect();
            if possible.is_empty() {
                denied(not_allowed(rbac), chain);
                return;
            }
            let who: Vec<String> = rbac.policies.values().flat_map(principals).collect();
            let who = match who.is_empty() {
                true => String::new(),
                false => format!(" (allowed: {})", who.join(", ")),
            };
            unsure.push(format!("only {} may allow it{who}", possible.join(", ")));
        }
    }
    match unsure.is_empty() {
        true => chain.ok(AUTHORIZATION, "the policies let it in"),
        false => chain.note(
            AUTHORIZATION,
            format!("{}: --principal spiffe://… and a path decide", unsure.join("; ")),
        ),
    }
}

fn denied(evidence: String, chain: &mut Chain) {
    let remedy = "add the caller to a policy with action ALLOW, or take it out of the one that denies it; then calls are \
                  answered with 403 `RBAC: access denied` no more";
    chain.fault(AUTHORIZATION, Cause::RbacDenied, evidence, remedy);
}

fn not_allowed(rbac: &Rbac) -> String {
    let names: Vec<String> = rbac.policies.keys().map(|name| policy(name)).collect();
    let who: Vec<String> = rbac.policies.values().flat_map(principals).collect();
    match (names.is_empty(), who.is_empty()) {
        (true, _) => "a policy with action ALLOW and no rule is in force: nobody may".to_owned(),
        (false, true) => format!("none of {} allows it", names.join(", ")),
        (false, false) => format!("none of {} allows it, but {}", names.join(", "), who.join(", ")),
    }
}

/// A policy in the operator's words; istiod names them `ns[NAMESPACE]-policy[NAME]-rule[N]`.
fn policy(name: &str) -> String {
    let part = |key: &str| {
        let (_, rest) = name.split_once(&format!("{key}["))?;
        Some(rest.split_once(']')?.0)
    };
    match (part("ns"), part("policy"), part("rule")) {
        (Some(namespace), Some(policy), Some(rule)) => {
            format!("AuthorizationPolicy {namespace}/{policy} (rule {rule})")
        }
        _ => format!("policy {name}"),
    }
}

/// The identities that a policy is about, as far as they are plain.
fn principals(policy: &Policy) -> Vec<String> {
    fn collect(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                for (key, value) in members {
                    match (key.as_str(), value) {
                        ("exact" | "prefix" | "suffix", Value::String(text)) => into.push(text.clone()),
                        ("regex", Value::String(text)) => into.push(text.clone()),
                        ("not_id", _) => {}
                        _ => collect(value, into),
                    }
                }
            }
            Value::Array(items) => items.iter().for_each(|item| collect(item, into)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    policy.principals.iter().for_each(|it| collect(&it.0, &mut found));
    found
}

fn judge(policy: &Policy, request: &Request<'_>) -> Truth {
    let any = |all: &[Condition]| Truth::any(all.iter().map(|it| holds(it, request)));
    Truth::all([any(&policy.permissions), any(&policy.principals)].into_iter())
}

fn holds(condition: &Condition, request: &Request<'_>) -> Truth {
    let Some((kind, value)) = condition.parts() else {
        return Truth::Unknown;
    };
    let members = || Condition::members(value).into_iter().map(|it| holds(&it, request));
    match kind {
        "any" => Truth::of(value == true),
        "and_rules" | "and_ids" => Truth::all(members()),
        "or_rules" | "or_ids" => Truth::any(members()),
        "not_rule" | "not_id" => holds(&Condition(value.clone()), request).not(),
        "destination_port" => Truth::of(value == request.port),
        "url_path" => truth::maybe_text(&value["path"], request.path),
        "header" if value["name"] == ":path" => truth::maybe_text(&value["string_match"], request.path),
        "direct_remote_ip" | "remote_ip" | "source_ip" => truth::address(value, request.peer),
        "authenticated" => identity(&value["principal_name"], request),
        "filter_state" if value["key"] == "io.istio.peer_principal" => identity(&value["string_match"], request),
        _ => Truth::Unknown,
    }
}

/// Truth of "the caller's certificate has such a name"; any will do where none is told.
fn identity(name: &Value, request: &Request<'_>) -> Truth {
    match request.principal {
        None if request.plaintext => Truth::No,
        Some(_) if name.is_null() => Truth::Yes,
        principal => truth::maybe_text(name, principal),
    }
}
