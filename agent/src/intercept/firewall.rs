//! Other programs' firewalls. What is redirected comes to their input chains with the port that it is redirected to, which
//! they don't let in because the application's is. Read only, and by what is plain: a set or a map by name is not followed.

mod iptables;

use std::collections::BTreeSet;

use serde_json::Value;

use super::iptables::legacy_rules;
use super::nftables::TABLE;
use crate::config::ports;
use crate::host::{Host, Invocation};

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

/// The ports of `wanted` that an input chain of another program drops; `None`: none, or it can't be seen. Blocks.
pub(super) fn closed(host: &Host, wanted: &[u16]) -> Option<Closed> {
    let legacy = legacy_rules(host);
    let legacy = legacy
        .iter()
        .filter_map(|(program, saved)| iptables::closed(program, saved, wanted));
    nftables(host, wanted).into_iter().chain(legacy).reduce(Closed::and)
}

/// By nft(8), which has the rules of iptables over nf_tables too.
fn nftables(host: &Host, wanted: &[u16]) -> Option<Closed> {
    let listing = host.run(&Invocation::new(["nft", "-j", "list", "ruleset"])).ok()?;
    let saved = |family: &str| {
        let program = match family {
            "ip6" => "ip6tables-nft-save",
            _ => "iptables-nft-save",
        };
        host.run(&Invocation::new([program])).unwrap_or_default()
    };
    of(&serde_json::from_str(&listing).ok()?, wanted, &saved)
}

/// `saved` gives the rules of a family as iptables has them.
fn of(listing: &Value, wanted: &[u16], saved: &dyn Fn(&str) -> String) -> Option<Closed> {
    let objects = listing["nftables"].as_array()?;
    let rules: Vec<&Value> = objects.iter().filter_map(|object| object.get("rule")).collect();
    let (mut ports, mut remedies) = (BTreeSet::new(), BTreeSet::new());
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    for chain in chains.filter(|chain| chain["hook"] == "input" && chain["table"] != TABLE) {
        let of_table = |rule: &&&Value| rule["table"] == chain["table"] && rule["family"] == chain["family"];
        let rules: Vec<&Value> = rules.iter().filter(of_table).copied().collect();
        if !drops_the_rest(chain, &rules) {
            continue;
        }
        let name = chain["name"].as_str().unwrap_or_default();
        let is_closed = |port: &u16| !lets_in(&rules, name, *port, &mut BTreeSet::new());
        let mut missing: Vec<u16> = wanted.iter().copied().filter(is_closed).collect();
        // nft(8) says of a match of iptables', such as ufw's lists of ports, that it is there, and no more.
        if !missing.is_empty() && rules.iter().any(|rule| accepts(rule) && !is_plain(rule)) {
            let accepted = iptables::accepted_ports(&saved(chain["family"].as_str().unwrap_or_default()));
            missing.retain(|port| !accepted.iter().any(|range| range.contains(port)));
        }
        if !missing.is_empty() {
            remedies.insert(remedy(chain, &rules, &missing));
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
fn lets_in<'a>(rules: &[&'a Value], chain: &'a str, port: u16, seen: &mut BTreeSet<&'a str>) -> bool {
    if !seen.insert(chain) {
        return false;
    }
    let of_chain = rules.iter().filter(|rule| rule["chain"] == chain && is_plain(rule));
    of_chain.into_iter().any(|rule| match target(rule) {
        Some(next) => ports_of(rule).all(|right| holds(right, port)) && lets_in(rules, next, port, seen),
        None => accepts(rule) && is_for(rule, port),
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

fn is_for(rule: &Value, port: u16) -> bool {
    let is_redirected = [ports::INBOUND, ports::OUTBOUND].contains(&port);
    let for_redirected = |it: &Value| it["left"]["ct"]["key"] == "status" && it["right"].to_string().contains("dnat");
    matches(rule).next().is_none()
        || ports_of(rule).any(|right| holds(right, port))
        || is_redirected && matches(rule).any(for_redirected)
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

/// The command of the program that keeps the chain.
fn remedy(chain: &Value, rules: &[&Value], ports: &[u16]) -> String {
    let text = |key: &str| chain[key].as_str().unwrap_or_default();
    let joined = |between: &str| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(between);
    let is_ufw = rules
        .iter()
        .any(|rule| rule["chain"].as_str().unwrap_or_default().starts_with("ufw"));
    if text("table") == "firewalld" {
        let ports: String = ports.iter().map(|port| format!(" --add-port={port}/tcp")).collect();
        format!("firewall-cmd --permanent{ports} && firewall-cmd --reload")
    } else if is_ufw {
        format!("ufw allow {}/tcp", joined(","))
    } else {
        let (family, table, chain) = (text("family"), text("table"), text("name"));
        format!(
            "nft insert rule {family} {table} {chain} tcp dport {{ {} }} accept",
            joined(", ")
        )
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
        let chain = json!({"family": "inet", "table": table, "name": name, "type": "filter", "hook": "input", "policy": policy});
        json!({ "chain": chain })
    }

    fn ports(right: Value) -> Value {
        let left = json!({"payload": {"protocol": "tcp", "field": "dport"}});
        json!([{"match": {"op": "==", "left": left, "right": right}}, {"accept": null}])
    }

    fn closed(objects: Vec<Value>) -> Option<(Vec<u16>, String)> {
        let closed = of(&json!({ "nftables": objects }), &WANTED, &|_| SAVED.to_owned())?;
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
