//! Rules of other programs that send elsewhere what Envoy itself calls, which the mesh's rules let pass. Read only.

use anyhow::Result;
use serde_json::Value;

use super::ahead::{Ahead, Captured, ahead};
use super::rule::{ANY, Call, Rule, Verdict};
use super::{Hook, iptables, is_met, listed, nft, objects, printed, word};
use crate::host::Host;
use crate::intercept::iptables::legacy_rules;
use crate::intercept::nftables::TABLE;

/// A call of Envoy's to elsewhere.
const ENVOYS: Call = Call {
    hook: Hook::Envoy,
    udp: false,
    from: ANY,
    to: ANY,
    by: None,
    is_redirected: false,
    is_of_named: false,
};

/// Rules for all of what leaves, or for some ports: those for some addresses are somebody's services. Blocks.
///
/// # Errors
/// When a program that is installed doesn't list its rules.
pub(in crate::intercept) fn rewriting(host: &Host, captured: Captured<'_>) -> Result<Vec<Ahead>> {
    if !captured.membership.outbound.is_any() {
        return Ok(Vec::new());
    }
    let mut found = in_nftables(&listed(host)?, captured);
    for program in ["iptables-nft", "ip6tables-nft"] {
        let saved = printed(host, &[&format!("{program}-save")])?;
        found.extend(in_nat(program, &saved.unwrap_or_default(), captured));
    }
    for (program, saved) in legacy_rules(host)? {
        found.extend(in_nat(&program, &saved, captured));
    }
    Ok(found)
}

fn in_nftables(listing: &Value, captured: Captured<'_>) -> Vec<Ahead> {
    let families = captured.membership.families();
    let is_asked = |chain: &&Value| {
        chain["type"] == "nat"
            && chain["hook"] == "output"
            && chain["table"] != TABLE
            && is_met(families, word(&chain["family"]))
    };
    let mut found = Vec::new();
    for chain in objects(listing, "chain").filter(is_asked) {
        let is_of = |rule: &&Value| {
            let same = |key: &str, other: &str| chain[key] == rule[other];
            same("family", "family") && same("table", "table") && same("name", "chain")
        };
        let rules = objects(listing, "rule").filter(is_of);
        let rules = rules.flat_map(|listed| nft::rules(listed).into_iter().map(move |rule| (rule, listed)));
        found.extend(taking(rules).map(|listed| ahead(chain, listed)));
    }
    found
}

/// Rules of iptables' table `nat`, of which nft(8) says no more than that they are there.
pub(in crate::intercept) fn in_nat(program: &str, saved: &str, captured: Captured<'_>) -> Vec<Ahead> {
    if !is_met(captured.membership.families(), program) {
        return Vec::new();
    }
    let rules =
        iptables::lines(saved, "nat").filter_map(|line| Some((iptables::rule(line)?, line.strip_prefix("-A ")?)));
    let of_output = rules.filter(|(rule, _)| rule.chain == "OUTPUT");
    let found = taking(of_output).map(|text| Ahead {
        rule: format!("`{text}` of {program}'s table nat"),
        fix: format!("{program} -t nat -D {text}"),
    });
    found.collect()
}

/// The rules of one chain that take Envoy's calls, up to one that leaves them all alone.
fn taking<T>(rules: impl Iterator<Item = (Rule, T)>) -> impl Iterator<Item = T> {
    let is_end = |rule: &Rule| [Verdict::Accept, Verdict::Return].contains(&rule.verdict) && rule.holds(&ENVOYS);
    let asked = rules.take_while(move |(rule, _)| !is_end(rule));
    let taking = asked.filter(|(rule, _)| rule.verdict == Verdict::Rewrite && rule.takes_some(&ENVOYS));
    taking.map(|(_, named)| named)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::Backend;
    use crate::control_plane::fixtures::membership;

    #[test]
    fn rule_that_takes_what_envoy_calls_is_named_unless_it_leaves_envoy_alone() {
        let membership = membership();
        let captured = Captured {
            membership: &membership,
            backend: Backend::Auto,
        };
        let told = |rules: &[&str]| {
            let rules: String = rules.iter().map(|rule| format!("-A {rule}\n")).collect();
            let found = in_nat("iptables-nft", &format!("*nat\n{rules}COMMIT\n"), captured);
            found.into_iter().map(|it| it.fix).collect::<Vec<_>>()
        };
        let redirect = "OUTPUT -p tcp -m tcp --dport 7070 -j REDIRECT --to-ports 9999";
        let fix = [format!("iptables-nft -t nat -D {redirect}")];
        assert_eq!(told(&[redirect]), fix);
        assert_eq!(told(&["OUTPUT -m owner --uid-owner 0-999 -j RETURN", redirect]), fix);
        assert_eq!(
            told(&["OUTPUT ! -d 127.0.0.0/8 -p tcp -j DNAT --to-destination 10.0.0.9:1"]).len(),
            1
        );
        for rules in [
            &["OUTPUT -m owner --uid-owner 1337 -j RETURN", redirect][..],
            &["OUTPUT -p tcp -m owner --uid-owner 1000 -j REDIRECT --to-ports 9999"],
            &["OUTPUT -p tcp -m owner ! --gid-owner 1337 -j REDIRECT --to-ports 9999"],
            &["OUTPUT -d 10.96.0.1/32 -p tcp -j DNAT --to-destination 10.0.0.9:1"],
            &["OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER"],
            &["OUTPUT -p tcp -m addrtype --dst-type LOCAL -j DNAT --to-destination 172.17.0.2"],
            &["OUTPUT -o lo -p tcp -j REDIRECT --to-ports 9999"],
            &["OUTPUT -p udp -j REDIRECT --to-ports 9999"],
            &["PREROUTING -p tcp -j REDIRECT --to-ports 9999"],
        ] {
            assert_eq!(told(rules), [""; 0], "{rules:?}");
        }
    }

    #[test]
    fn chain_of_nftables_is_read_as_one_of_iptables() {
        let chain = json!({"family": "ip", "table": "t", "name": "c", "type": "nat", "hook": "output", "prio": -100});
        let told = |users: Value| {
            let left = json!({"meta": {"key": "skuid"}});
            let owner = json!({"match": {"op": "==", "left": left, "right": users}});
            let expr = json!([owner, {"redirect": {"port": 9999}}]);
            let rule = json!({"family": "ip", "table": "t", "chain": "c", "handle": 7, "expr": expr});
            let listing = json!({"nftables": [{ "chain": chain }, { "rule": rule }]});
            let membership = membership();
            let captured = Captured {
                membership: &membership,
                backend: Backend::Auto,
            };
            in_nftables(&listing, captured).len()
        };
        assert_eq!(told(json!({"set": [0, {"range": [1000, 70000]}]})), 1);
        assert_eq!(told(json!({"set": [0, 1000]})), 0);
        assert_eq!(told(json!("@users")), 0);
    }
}
