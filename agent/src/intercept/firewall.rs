//! Other programs' firewalls. What is redirected comes to their chains with the port that it is redirected to, which they
//! don't let pass because the one that was called is. Read only, and by what is plain: a set or a map by name is not
//! followed.

mod iptables;
mod remedy;

use std::collections::BTreeSet;

use serde_json::Value;

use super::iptables::legacy_rules;
use super::nftables::TABLE;
use crate::config::ports;
use crate::host::{Host, Invocation};

/// The chains of a firewall.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Hook {
    /// Those that calls to this VM come to.
    Input,
    /// Those that calls of its programs come to. One that is redirected to loopback still leaves, as they see it, by the
    /// interface that it was for: no rule for `lo` lets it out (nf_nat_inet_fn routes anew only after the hook).
    Output,
}

impl Hook {
    /// Its name to nft(8).
    fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::Output => "output",
        }
    }
}

/// The ports that a firewall keeps closed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Closed {
    pub(super) ports: BTreeSet<u16>,
    /// The commands that open them.
    pub(super) remedies: BTreeSet<String>,
}

impl Closed {
    /// What both keep closed.
    fn and(mut self, other: Self) -> Self {
        self.ports.extend(other.ports);
        self.remedies.extend(other.remedies);
        self
    }
}

/// The ports of `wanted` that a chain of another program drops; `None`: none, or it can't be seen. Blocks.
pub(super) fn closed(host: &Host, hook: Hook, wanted: &[u16]) -> Option<Closed> {
    let legacy = legacy_rules(host);
    let legacy = legacy
        .iter()
        .filter_map(|(program, saved)| iptables::closed(program, saved, hook, wanted));
    nftables(host, hook, wanted)
        .into_iter()
        .chain(legacy)
        .reduce(Closed::and)
}

/// By nft(8), which has the rules of iptables over nf_tables too.
fn nftables(host: &Host, hook: Hook, wanted: &[u16]) -> Option<Closed> {
    let listing = host.run(&Invocation::new(["nft", "-j", "list", "ruleset"])).ok()?;
    let saved = |family: &str| {
        let program = match family {
            "ip6" => "ip6tables-nft-save",
            _ => "iptables-nft-save",
        };
        host.run(&Invocation::new([program])).unwrap_or_default()
    };
    of(&serde_json::from_str(&listing).ok()?, hook, wanted, &saved)
}

/// `saved` gives the rules of a family as iptables has them.
fn of(listing: &Value, hook: Hook, wanted: &[u16], saved: &dyn Fn(&str) -> String) -> Option<Closed> {
    let objects = listing["nftables"].as_array()?;
    let rules: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let (mut ports, mut remedies) = (BTreeSet::new(), BTreeSet::new());
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    for chain in chains.filter(|chain| chain["hook"] == hook.name() && chain["table"] != TABLE) {
        let of_table = |rule: &&&Value| rule["table"] == chain["table"] && rule["family"] == chain["family"];
        let rules: Vec<&Value> = rules.iter().filter(of_table).copied().collect();
        if !drops_the_rest(chain, &rules) {
            continue;
        }
        let name = chain["name"].as_str().unwrap_or_default();
        let is_closed = |port: &u16| !lets_pass(&rules, name, hook, *port, &mut BTreeSet::new());
        let mut missing: Vec<u16> = wanted.iter().copied().filter(is_closed).collect();
        // nft(8) says of a match of iptables', such as ufw's lists of ports, that it is there, and no more.
        if !missing.is_empty() && rules.iter().any(|rule| accepts(rule) && !is_plain(rule)) {
            let saved = saved(chain["family"].as_str().unwrap_or_default());
            missing.retain(|port| !iptables::lets_pass(&saved, hook, *port));
        }
        if !missing.is_empty() {
            remedies.insert(remedy::of(chain, &rules, hook, &missing));
            ports.extend(missing);
        }
    }
    (!ports.is_empty()).then_some(Closed { ports, remedies })
}

/// By its policy, or by a last rule that drops or rejects whatever comes to it.
fn drops_the_rest(chain: &Value, rules: &[&Value]) -> bool {
    let last = rules.iter().rfind(|rule| rule["chain"] == chain["name"]);
    let ends = last.is_some_and(|rule| {
        let has = |words: &[&str]| expressions(rule).all(|it| words.iter().any(|word| it.get(word).is_some()));
        has(&["counter", "log", "drop", "reject"]) && !has(&["counter", "log"])
    });
    chain["policy"] == "drop" || ends
}

fn expressions(rule: &Value) -> impl Iterator<Item = &Value> {
    rule["expr"].as_array().into_iter().flatten()
}

/// Tells whether a chain, or one that it leads to, accepts calls to this port: by the port, for being redirected, or
/// whatever they are. An accepting chain that only other ports lead to, as ufw has one for limits, is none for this one.
fn lets_pass<'a>(rules: &[&'a Value], chain: &'a str, hook: Hook, port: u16, seen: &mut BTreeSet<&'a str>) -> bool {
    if !seen.insert(chain) {
        return false;
    }
    let of_chain = rules.iter().filter(|rule| rule["chain"] == chain && is_plain(rule));
    of_chain.into_iter().any(|rule| match target(rule) {
        Some(next) => ports_of(rule).all(|right| holds(right, port)) && lets_pass(rules, next, hook, port, seen),
        None => accepts(rule) && is_for(rule, hook, port),
    })
}

/// The chain that a rule sends packets to.
fn target(rule: &Value) -> Option<&str> {
    let verdicts = expressions(rule).filter_map(|it| it.get("jump").or_else(|| it.get("goto")));
    verdicts.filter_map(|verdict| verdict["target"].as_str()).next()
}

fn matches(rule: &Value) -> impl Iterator<Item = &Value> {
    expressions(rule).filter_map(|it| it.get("match"))
}

/// The TCP ports that a rule matches, as nft(8) has them.
fn ports_of(rule: &Value) -> impl Iterator<Item = &Value> {
    let by_port = |it: &&Value| {
        let payload = &it["left"]["payload"];
        payload["protocol"] == "tcp" && payload["field"] == "dport" && it["op"] == "=="
    };
    matches(rule).filter(by_port).map(|it| &it["right"])
}

fn is_for(rule: &Value, hook: Hook, port: u16) -> bool {
    let is_redirected = hook == Hook::Output || [ports::INBOUND, ports::OUTBOUND].contains(&port);
    let for_redirected = |it: &Value| it["left"]["ct"]["key"] == "status" && it["right"].to_string().contains("dnat");
    let for_all = |it: &Value| {
        let (left, right) = (&it["left"], it["right"].to_string());
        left["ct"]["key"] == "state" && right.contains("new")
            || left["meta"]["key"] == "l4proto" && right.contains("tcp")
    };
    matches(rule).all(for_all)
        || ports_of(rule).any(|right| holds(right, port))
        || is_redirected && matches(rule).any(for_redirected)
        || hook == Hook::Output && matches(rule).all(is_for_this_vm)
}

/// A match of packets to this VM itself.
fn is_for_this_vm(it: &Value) -> bool {
    let (left, right) = (&it["left"], &it["right"]);
    let (is_type, is_address) = (left["fib"]["result"] == "type", left["payload"]["field"] == "daddr");
    let right = right.to_string();
    is_type && right == "\"local\"" || is_address && (right.contains("\"127.0.0.") || right.contains("\"::1\""))
}

fn accepts(rule: &Value) -> bool {
    expressions(rule).any(|it| it.get("accept").is_some())
}

fn is_plain(rule: &Value) -> bool {
    expressions(rule).all(|it| it.get("xt").is_none())
}

/// Tells whether a port, a range or a set of both has this one.
fn holds(right: &Value, port: u16) -> bool {
    if let Some(set) = right["set"].as_array() {
        return set.iter().any(|item| holds(item, port));
    }
    let number = |value: &Value| value.as_u64().unwrap_or(u64::MAX);
    match right["range"].as_array().map(Vec::as_slice) {
        Some([first, last]) => (number(first)..=number(last)).contains(&port.into()),
        _ => number(right) == u64::from(port),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WANTED: [u16; 2] = [15006, 15021];
    const SAVED: &str = "-A ufw-user-input -p tcp -m multiport --dports 15000:15006 -j ACCEPT\n";

    fn rule(table: &str, chain: &str, expr: Value) -> Value {
        json!({"rule": {"family": "inet", "table": table, "chain": chain, "expr": expr}})
    }

    fn chain(table: &str, name: &str, policy: &str) -> Value {
        let hook = if name.to_lowercase().contains("output") {
            "output"
        } else {
            "input"
        };
        let chain =
            json!({"family": "inet", "table": table, "name": name, "type": "filter", "hook": hook, "policy": policy});
        json!({ "chain": chain })
    }

    fn ports(right: Value) -> Value {
        let left = json!({"payload": {"protocol": "tcp", "field": "dport"}});
        json!([{"match": {"op": "==", "left": left, "right": right}}, {"accept": null}])
    }

    fn closed(objects: Vec<Value>) -> Option<(Vec<u16>, String)> {
        closed_at(Hook::Input, &WANTED, objects)
    }

    fn closed_at(hook: Hook, wanted: &[u16], objects: Vec<Value>) -> Option<(Vec<u16>, String)> {
        let closed = of(&json!({ "nftables": objects }), hook, wanted, &|_| SAVED.to_owned())?;
        let remedies: Vec<String> = closed.remedies.into_iter().collect();
        Some((closed.ports.into_iter().collect(), remedies.join("; ")))
    }

    #[test]
    fn firewall_that_knows_the_application_alone_is_named_with_its_command() {
        let application = |table, name| rule(table, name, ports(json!({"set": [22, 3550]})));
        let nft = vec![chain("filter", "input", "drop"), application("filter", "input")];
        let command = "nft insert rule inet filter input tcp dport { 15006, 15021 } accept";
        assert_eq!(closed(nft), Some((WANTED.to_vec(), command.to_owned())));
        let limit = json!([{"counter": null}, {"accept": null}]);
        let ufw = vec![
            chain("filter", "INPUT", "drop"),
            rule("filter", "INPUT", json!([{"jump": {"target": "ufw-user-input"}}])),
            application("filter", "ufw-user-input"),
            // Nothing leads there for these ports.
            rule("filter", "ufw-user-limit-accept", limit),
        ];
        assert_eq!(
            closed(ufw),
            Some((WANTED.to_vec(), "ufw allow 15006,15021/tcp".to_owned()))
        );
        let redirected =
            json!([{"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}, {"accept": null}]);
        let firewalld = vec![
            chain("firewalld", "filter_INPUT", "accept"),
            rule("firewalld", "filter_INPUT", redirected),
            rule("firewalld", "filter_INPUT", json!([{"reject": {"type": "icmpx"}}])),
        ];
        let command = "firewall-cmd --permanent --add-port=15021/tcp && firewall-cmd --reload";
        assert_eq!(closed(firewalld), Some((vec![15021], command.to_owned())));
    }

    #[test]
    fn firewall_that_drops_what_leaves_for_envoy_is_named_with_its_command() {
        let closed = |expr: Value| {
            let rules = vec![chain("filter", "output", "drop"), rule("filter", "output", expr)];
            closed_at(Hook::Output, &[15001, 15053], rules)
        };
        let accept = |left: Value, right: Value| json!([{"match": {"op": "==", "left": left, "right": right}}, {"accept": null}]);
        let command = "nft insert rule inet filter output fib daddr type local accept";
        let lo = json!({"meta": {"key": "oifname"}});
        let named = Some((vec![15001, 15053], command.to_owned()));
        assert_eq!(closed(accept(lo, json!("lo"))), named);
        assert_eq!(closed(ports(json!({"set": [53, 7070]}))), named);
        let state = json!({"ct": {"key": "state"}});
        assert_eq!(closed(accept(state.clone(), json!(["established", "related"]))), named);
        let daddr = |protocol: &str| json!({"payload": {"protocol": protocol, "field": "daddr"}});
        for open in [
            accept(state, json!(["established", "new"])),
            accept(json!({"fib": {"result": "type", "flags": "daddr"}}), json!("local")),
            accept(daddr("ip"), json!({"prefix": {"addr": "127.0.0.0", "len": 8}})),
            accept(daddr("ip6"), json!("::1")),
            ports(json!({"set": [15001, 15053]})),
        ] {
            assert_eq!(closed(open), None);
        }
    }

    #[test]
    fn list_of_ports_that_only_iptables_shows_counts() {
        let list = json!([{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}]);
        let ufw = vec![chain("filter", "INPUT", "drop"), rule("filter", "ufw-user-input", list)];
        assert_eq!(closed(ufw), Some((vec![15021], "ufw allow 15021/tcp".to_owned())));
    }

    #[test]
    fn firewall_that_lets_the_ports_in_is_fine() {
        let input = |policy| chain("filter", "input", policy);
        assert_eq!(closed(vec![input("accept")]), None);
        assert_eq!(closed(vec![chain(TABLE, "input", "drop")]), None);
        for right in [
            json!({"set": [{"range": [15000, 15010]}, 15021]}),
            json!({"range": [1, 65535]}),
        ] {
            assert_eq!(closed(vec![input("drop"), rule("filter", "input", ports(right))]), None);
        }
        assert_eq!(
            closed(vec![input("drop"), rule("filter", "input", json!([{"accept": null}]))]),
            None
        );
        let local =
            json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]);
        assert!(closed(vec![input("drop"), rule("filter", "input", local)]).is_some());
    }
}
