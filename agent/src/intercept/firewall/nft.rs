//! Rules as `nft -j` lists them (libnftables-json(5)).

use std::ops::RangeInclusive;

use serde_json::{Value, json};

use super::rule::{Condition, Rule, Verdict};
use crate::config::ports;

/// A listed rule, as many times as it has ways to a verdict: one with a map has several.
pub(super) fn rules(listed: &Value) -> Vec<Rule> {
    let chain = listed["chain"].as_str().unwrap_or_default();
    let (mut conditions, mut rules) = (Vec::new(), Vec::new());
    let rule = |conditions: &[Condition], verdict| Rule {
        chain: chain.to_owned(),
        conditions: conditions.to_vec(),
        verdict,
    };
    for it in listed["expr"].as_array().into_iter().flatten() {
        if let Some(matched) = it.get("match") {
            conditions.extend(self::conditions(matched));
        } else if let Some(map) = it.get("vmap") {
            for way in map["data"]["set"].as_array().into_iter().flatten() {
                let key = json!({ "op": "==", "left": map["key"], "right": way[0] });
                let conditions: Vec<Condition> = conditions.iter().cloned().chain(self::conditions(&key)).collect();
                rules.extend(verdict(&way[1]).map(|verdict| rule(&conditions, verdict)));
            }
        } else if let Some(verdict) = verdict(it) {
            rules.push(rule(&conditions, verdict));
        } else if !["counter", "log", "comment"].iter().any(|word| it.get(word).is_some()) {
            conditions.push(Condition::Unknown);
        }
    }
    rules
}

fn verdict(it: &Value) -> Option<Verdict> {
    let (word, to) = it.as_object()?.iter().next()?;
    let target = || to["target"].as_str().unwrap_or_default().to_owned();
    Some(match word.as_str() {
        "accept" => Verdict::Accept,
        "drop" | "reject" => Verdict::Drop,
        "jump" => Verdict::Jump(target()),
        "goto" => Verdict::Goto(target()),
        "return" => Verdict::Return,
        "dnat" | "redirect" => Verdict::Rewrite,
        "notrack" => Verdict::Untrack,
        "mangle" if to["key"]["ct"]["key"] == "zone" && to["value"] != 0 => Verdict::Untrack,
        _ => return None,
    })
}

/// Conditions of a match: of a header's field also that the packet has the header.
fn conditions(matched: &Value) -> impl Iterator<Item = Condition> {
    let transport = |name: &&str| ["dccp", "icmp", "icmpv6", "igmp", "sctp", "tcp", "udp", "udplite"].contains(name);
    let of = matched["left"]["payload"]["protocol"].as_str().filter(transport);
    let has_header = of.map(|name| Condition::protocol(&[name], true));
    has_header.into_iter().chain([condition(matched)])
}

fn condition(matched: &Value) -> Condition {
    let (left, right) = (&matched["left"], &matched["right"]);
    let is_equal = match matched["op"].as_str() {
        Some("==" | "in") => true,
        Some("!=") => false,
        _ => return Condition::Unknown,
    };
    let has = |word: &str| words(right).any(|it| it == word) == is_equal;
    let names = || words(right).collect::<Vec<_>>();
    let ports = |condition: fn(Vec<RangeInclusive<u16>>, bool) -> Condition| {
        ranges(right).map_or(Condition::Unknown, |ranges| condition(ranges, is_equal))
    };
    let address = right["prefix"]["addr"].as_str().or(right.as_str()).unwrap_or_default();
    let key = |of: &str, key: &str| left[of][key].as_str();
    match (key("payload", "field"), key("meta", "key"), key("ct", "key")) {
        (Some("dport"), ..) => ports(Condition::Ports),
        (Some("sport"), ..) => ports(Condition::SourcePorts),
        (Some("protocol" | "nexthdr"), ..) | (_, Some("l4proto"), _) => Condition::protocol(&names(), is_equal),
        (Some("daddr"), ..) => Condition::to(address, is_equal),
        (_, Some("skuid" | "skgid"), _) => {
            has_proxy(right).map_or(Condition::Unknown, |has| Condition::Owner(has == is_equal))
        }
        (Some("saddr"), ..) if is_equal => network(right).map_or(Condition::Unknown, Condition::From),
        (_, Some("iif" | "oif" | "iifname" | "oifname"), _) => Condition::interface(&names(), is_equal),
        (.., Some("state")) => Condition::New(has("new")),
        (.., Some("status")) if has("dnat") => Condition::Redirected,
        _ if left["fib"]["result"] == "type" && has("local") => Condition::Local,
        _ => Condition::Unknown,
    }
}

/// An address, a network, or a set of both; a set by name is one.
fn network(right: &Value) -> Option<String> {
    if let Some(set) = right["set"].as_array() {
        let networks: Option<Vec<_>> = set.iter().map(network).collect();
        return Some(networks?.join(", "));
    }
    match (&right["prefix"], right["range"].as_array().map(Vec::as_slice)) {
        (_, Some([first, last])) => Some(format!("{}-{}", first.as_str()?, last.as_str()?)),
        (Value::Object(prefix), _) => Some(format!("{}/{}", prefix.get("addr")?.as_str()?, prefix.get("len")?)),
        _ => right.as_str().map(str::to_owned),
    }
}

/// A word, or those of a list or a set.
fn words(right: &Value) -> impl Iterator<Item = &str> {
    let list = right["set"].as_array().or(right.as_array());
    let words = list.map_or_else(|| std::slice::from_ref(right), Vec::as_slice);
    words.iter().filter_map(Value::as_str)
}

/// True when Envoy's user or group is this one, or among a range or a set; `None` for a set by name.
fn has_proxy(right: &Value) -> Option<bool> {
    if let Some(set) = right["set"].as_array() {
        let all: Option<Vec<bool>> = set.iter().map(has_proxy).collect();
        return Some(all?.contains(&true));
    }
    let (first, last) = match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => (first.as_u64()?, last.as_u64()?),
        _ => (right.as_u64()?, right.as_u64()?),
    };
    Some((first..=last).contains(&u64::from(ports::PROXY_UID)))
}

/// Of a port, a range or a set of both; `None` for a set by name, which is not followed.
fn ranges(right: &Value) -> Option<Vec<RangeInclusive<u16>>> {
    let number = |value: &Value| u16::try_from(value.as_u64()?).ok();
    if let Some(set) = right["set"].as_array() {
        let ranges: Option<Vec<_>> = set.iter().map(ranges).collect();
        return Some(ranges?.concat());
    }
    let (first, last) = match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => (number(first)?, number(last)?),
        _ => (number(right)?, number(right)?),
    };
    Some(vec![first..=last])
}
