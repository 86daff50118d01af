//! Firewalls as nft lists them, of which each names what it keeps closed.

use serde_json::json;

use super::fuzz::listing_of;
use super::*;

const WANTED: [u16; 2] = [15006, 15021];
const SAVED: &str = "*filter\n:INPUT DROP [0:0]\n:ufw-user-input - [0:0]\n-A INPUT -j ufw-user-input\n\
                     -A ufw-user-input -p tcp -m multiport --dports 15000:15006 -j ACCEPT\nCOMMIT\n";

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

/// All but 15021 is what other ports are redirected to.
fn target(port: u16) -> Target {
    Target {
        is_redirected: port != 15021,
        ..Target::tcp(port)
    }
}

fn closed_at(hook: Hook, wanted: &[u16], objects: Vec<Value>) -> Option<(Vec<u16>, String)> {
    let wanted: Vec<Target> = wanted.iter().copied().map(target).collect();
    let listing = json!({ "nftables": objects }).to_string();
    let closed = listing_of(&listing, SAVED).closed(Way::of(hook), &wanted).unwrap()?;
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
    let accept =
        |left: Value, right: Value| json!([{"match": {"op": "==", "left": left, "right": right}}, {"accept": null}]);
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
fn firewall_that_lets_out_the_ports_of_the_web_alone_is_named_with_its_commands() {
    let web = |more: Vec<Value>| {
        let rules = vec![
            chain("filter", "output", "drop"),
            rule("filter", "output", ports(json!({"set": [80, 443]}))),
        ];
        [rules, more].concat()
    };
    let of_envoy = "nft insert rule inet filter output meta skuid 1337 accept".to_owned();
    let named = Some((vec![15001], of_envoy));
    assert_eq!(closed_at(Hook::Envoy, &[15001], web(Vec::new())), named);
    let of_agent = "nft insert rule inet filter output tcp dport { 15012 } accept".to_owned();
    let to_istiod = || vec![rule("filter", "output", ports(json!(15012)))];
    assert_eq!(
        closed_at(Hook::Agent, &[15012], web(Vec::new())),
        Some((vec![15012], of_agent))
    );
    assert_eq!(closed_at(Hook::Agent, &[15012], web(to_istiod())), None);
    assert_eq!(closed_at(Hook::Envoy, &[15001], web(to_istiod())), named);
    let to_pods = vec![rule("filter", "output", ports(json!({"range": [3000, 9000]})))];
    assert_eq!(closed_at(Hook::Envoy, &[15001], web(to_pods)), None);
}

/// A chain that accepts the rest may drop these ports all the same, and one by a map or on lo.
#[test]
fn rule_that_drops_a_port_of_the_mesh_is_named_whatever_the_policy() {
    let drop =
        |left: Value, right: Value| json!([{"match": {"op": "==", "left": left, "right": right}}, {"drop": null}]);
    let at = |hook: Hook, name: &str, expr: Value| {
        let rules = vec![chain("filter", name, "accept"), rule("filter", name, expr)];
        closed_at(hook, &WANTED, rules)
    };
    let dport = || json!({"payload": {"protocol": "tcp", "field": "dport"}});
    let command = "nft insert rule inet filter input tcp dport { 15006 } accept".to_owned();
    let named = Some((vec![15006], command));
    assert_eq!(at(Hook::Input, "input", drop(dport(), json!(15006))), named);
    let map = json!([{"vmap": {"key": dport(), "data": {"set": [[22, {"accept": null}], [15006, {"drop": null}]]}}}]);
    assert_eq!(at(Hook::Input, "input", map), named);
    let udp = json!({"payload": {"protocol": "udp", "field": "dport"}});
    assert_eq!(at(Hook::Input, "input", drop(udp, json!(15006))), None);
    for (hook, name, command) in [
        (
            Hook::LoopbackInput,
            "input",
            "nft insert rule inet filter input iif lo accept",
        ),
        (
            Hook::LoopbackOutput,
            "output",
            "nft insert rule inet filter output oif lo accept",
        ),
    ] {
        let lo = || {
            drop(
                json!({"meta": {"key": if name == "input" { "iif" } else { "oifname" }}}),
                json!("lo"),
            )
        };
        assert_eq!(at(hook, name, lo()), Some((WANTED.to_vec(), command.to_owned())));
        assert_eq!(
            at(if name == "input" { Hook::Input } else { Hook::Output }, name, lo()),
            None
        );
    }
}

/// A VM with two interfaces, or one with a rule against forged addresses of lo, keeps nothing closed by these.
#[test]
fn rule_for_other_interfaces_or_addresses_closes_nothing() {
    let on =
        |op: &str, right: Value| json!({"match": {"op": op, "left": {"meta": {"key": "iifname"}}, "right": right}});
    let to_loopback = json!({"match": {
        "op": "==",
        "left": {"payload": {"protocol": "ip", "field": "daddr"}},
        "right": {"prefix": {"addr": "127.0.0.0", "len": 8}},
    }});
    let (accept, drop) = (|| json!({"accept": null}), || json!({"drop": null}));
    for (policy, expr) in [
        ("accept", json!([on("!=", json!("lo")), to_loopback, drop()])),
        ("accept", json!([on("==", json!("eth1")), drop()])),
        ("accept", json!([on("!=", json!("eth0")), drop()])),
        ("drop", json!([on("==", json!({"set": ["lo", "eth0"]})), accept()])),
        ("drop", json!([on("==", json!("@wan")), accept()])),
    ] {
        let rules = vec![chain("filter", "input", policy), rule("filter", "input", expr.clone())];
        assert_eq!(closed(rules), None, "{expr}");
    }
    let others = json!([on("!=", json!("lo")), drop()]);
    assert!(
        closed(vec![
            chain("filter", "input", "accept"),
            rule("filter", "input", others)
        ])
        .is_some()
    );
}

/// As the wiki of nftables has it.
#[test]
fn map_of_interfaces_leads_to_what_accepts() {
    let by = |key: &str, data: Value| json!([{"vmap": {"key": {key: {"key": if key == "ct" { "state" } else { "iifname" }}}, "data": {"set": data}}}]);
    let objects = || {
        vec![
            chain("filter", "input", "drop"),
            rule(
                "filter",
                "input",
                by(
                    "ct",
                    json!([["invalid", {"drop": null}], ["established", {"accept": null}]]),
                ),
            ),
            rule(
                "filter",
                "input",
                by(
                    "meta",
                    json!([["lo", {"accept": null}], ["eth0", {"jump": {"target": "world"}}]]),
                ),
            ),
            rule("filter", "world", ports(json!({"set": [22, 15006]}))),
        ]
    };
    assert_eq!(closed_at(Hook::LoopbackInput, &WANTED, objects()), None);
    assert_eq!(closed(objects()).unwrap().0, [15021]);
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
    let local = json!([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}, {"accept": null}]);
    assert!(closed(vec![input("drop"), rule("filter", "input", local)]).is_some());
}

fn iptables_of(table: &str, more: Vec<Value>) -> Vec<Value> {
    let mut chain = json!({"family": "ip", "table": table, "name": "INPUT", "hook": "input", "policy": "accept"});
    chain["type"] = json!("filter");
    let xt = json!([{"xt": {"type": "match", "name": "multiport"}}, {"accept": null}]);
    let rule = |expr: Value| json!({"rule": {"family": "ip", "table": table, "chain": "INPUT", "expr": expr}});
    let rules = more.into_iter().chain([xt]).map(rule);
    [json!({ "chain": chain })].into_iter().chain(rules).collect()
}

#[test]
fn chain_of_iptables_is_judged_by_the_rules_of_its_own_table() {
    const FILTER: &str = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -i lo -j ACCEPT\n\
                          -A INPUT -p tcp -m tcp --dport 22 -j ACCEPT\n-A INPUT -j REJECT\nCOMMIT\n";
    const OURS: &str = "*mangle\n:INPUT ACCEPT [0:0]\n:ISTIO_INBOUND - [0:0]\n-A INPUT ! -i lo -j ISTIO_INBOUND\n\
                        -A ISTIO_INBOUND -j DROP\n";
    const DROP: &str = "-A INPUT -p tcp -m tcp --dport 15006 -j DROP\n";
    let ours = json!([{"jump": {"target": "ISTIO_INBOUND"}}]);
    let objects = [iptables_of("mangle", vec![ours]), iptables_of("filter", Vec::new())].concat();
    let listing = json!({ "nftables": objects }).to_string();
    let commands = |mangle: &str| {
        let saved = format!("{mangle}COMMIT\n{FILTER}");
        let closed = listing_of(&listing, &saved).closed(Way::of(Hook::Input), &[target(15006)]);
        Vec::from_iter(closed.unwrap().unwrap().remedies)
    };
    let of_filter = "iptables-nft -I INPUT -p tcp -m multiport --dports 15006 -j ACCEPT";
    assert_eq!(commands(OURS), [of_filter]);
    let behind_ours = "iptables-nft -t mangle -I INPUT 2 -p tcp -m multiport --dports 15006 -j ACCEPT";
    assert_eq!(commands(&format!("{OURS}{DROP}")), [of_filter, behind_ours]);
}
