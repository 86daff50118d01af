//! Other programs' rules in the output of iptables-save(8): lists of ports, and firewalls of the legacy kind.

use std::ops::RangeInclusive;

use super::Closed;
use crate::config::ports;

/// The ports of `wanted` that the legacy filter's INPUT drops; `program` is the one that opens them.
pub(super) fn closed(program: &str, saved: &str, wanted: &[u16]) -> Option<Closed> {
    let filter = saved.split("*filter\n").nth(1)?.split("COMMIT").next()?;
    if !drops_the_rest(filter) {
        return None;
    }
    let accepted = accepted_ports(filter);
    let redirected = filter.lines().any(accepts_redirected);
    let is_open = |port: &u16| {
        accepted.iter().any(|range| range.contains(port))
            || redirected && [ports::INBOUND, ports::OUTBOUND].contains(port)
    };
    let missing: Vec<u16> = wanted.iter().copied().filter(|port| !is_open(port)).collect();
    let list = missing.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    let remedy = match filter.lines().any(|line| line.starts_with(":ufw")) {
        true => format!("ufw allow {list}/tcp"),
        false => format!("{program} -I INPUT -p tcp -m multiport --dports {list} -j ACCEPT"),
    };
    (!missing.is_empty()).then(|| Closed {
        ports: missing.into_iter().collect(),
        remedies: [remedy].into(),
    })
}

/// By INPUT's policy, or by a rule of it that drops or rejects whatever comes to it; and no rule before accepts all.
fn drops_the_rest(filter: &str) -> bool {
    let ends = filter.lines().filter_map(|line| line.strip_prefix("-A INPUT -j "));
    let first = ends
        .filter_map(|target| target.split_whitespace().next())
        .find(|target| ["ACCEPT", "DROP", "REJECT"].contains(target));
    match first {
        Some(target) => target != "ACCEPT",
        None => filter.lines().any(|line| line.starts_with(":INPUT DROP ")),
    }
}

/// What was redirected has another destination than it came with.
fn accepts_redirected(line: &str) -> bool {
    line.starts_with("-A ") && line.contains("--ctstate DNAT") && line.trim_end().ends_with("-j ACCEPT")
}

/// TCP ports that some rule accepts: by `--dport`, or by a list of the match `multiport` (iptables-extensions(8)).
pub(super) fn accepted_ports(saved: &str) -> Vec<RangeInclusive<u16>> {
    let accepts =
        |line: &&str| line.starts_with("-A ") && line.contains("-p tcp ") && line.trim_end().ends_with("-j ACCEPT");
    let list = |line: &str| {
        let mut words = line.split_whitespace();
        // One that is negated has a `!` before it, and the ports that it doesn't accept behind.
        let is_list = |word: &str| ["--dport", "--dports"].contains(&word);
        let at = words.clone().position(is_list)?;
        let is_negated = at > 0 && words.clone().nth(at - 1) == Some("!");
        words.nth(at + 1).filter(|_| !is_negated).map(str::to_owned)
    };
    let lists = saved.lines().filter(accepts).filter_map(list);
    lists
        .flat_map(|list| list.split(',').filter_map(range).collect::<Vec<_>>())
        .collect()
}

fn range(item: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = item.split_once(':').unwrap_or((item, item));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: [u16; 2] = [15006, 15021];

    #[test]
    fn legacy_firewall_that_knows_the_application_alone_is_named_with_its_command() {
        let closed = |policy: &str, rules: &str| {
            let saved = format!("*nat\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n:INPUT {policy} [0:0]\n{rules}COMMIT\n");
            let closed = closed("iptables-legacy", &saved, &WANTED)?;
            Some(closed.remedies.into_iter().collect::<Vec<_>>().join("; "))
        };
        let application = "-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp -m tcp --dport 3550 -j ACCEPT\n";
        let command = "iptables-legacy -I INPUT -p tcp -m multiport --dports 15006,15021 -j ACCEPT";
        assert_eq!(closed("DROP", application).as_deref(), Some(command));
        let rejects = format!("{application}-A INPUT -j REJECT --reject-with icmp-port-unreachable\n");
        assert_eq!(closed("ACCEPT", &rejects).as_deref(), Some(command));
        let redirected = "-A INPUT -m conntrack --ctstate DNAT -j ACCEPT\n";
        let command = "iptables-legacy -I INPUT -p tcp -m multiport --dports 15021 -j ACCEPT";
        assert_eq!(closed("DROP", redirected).as_deref(), Some(command));
        let ufw = ":ufw-user-input - [0:0]\n-A INPUT -j ufw-user-input\n";
        assert_eq!(closed("DROP", ufw).as_deref(), Some("ufw allow 15006,15021/tcp"));
        for (policy, rules) in [
            ("ACCEPT", application),
            ("DROP", "-A INPUT -j ACCEPT\n"),
            ("DROP", "-A INPUT -p tcp -m multiport --dports 15000:15090 -j ACCEPT\n"),
        ] {
            assert_eq!(closed(policy, rules), None, "{rules}");
        }
        assert_eq!(super::closed("iptables-legacy", "*filter\n", &WANTED), None);
        assert_eq!(super::closed("iptables-legacy", "", &WANTED), None);
    }

    #[test]
    fn ports_are_those_of_rules_that_accept_tcp() {
        let saved = "*filter\n:INPUT DROP [0:0]\n\
                     -A ufw-user-input -p tcp -m multiport --dports 22,15000:15006 -j ACCEPT\n\
                     -A ufw-user-input -p tcp -m tcp --dport 80 -j ACCEPT\n\
                     -A ufw-user-input -p udp -m udp --dport 53 -j ACCEPT\n\
                     -A ufw-user-input -p tcp -m tcp ! --dport 81 -j ACCEPT\n\
                     -A ufw-user-input -p tcp -m tcp --dport 15021 -j DROP\nCOMMIT\n";
        assert_eq!(accepted_ports(saved), [22..=22, 15000..=15006, 80..=80]);
        assert_eq!(
            accepted_ports("-A x -p tcp --dport\n-A x -p tcp --dports -j ACCEPT\n"),
            []
        );
    }
}
