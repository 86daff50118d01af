//! Other programs' rules in the output of iptables-save(8): lists of ports, and firewalls of the legacy kind.

use std::ops::RangeInclusive;

use super::{Closed, Hook, remedy};
use crate::config::ports;

/// The ports of `wanted` that the legacy filter's INPUT or OUTPUT drops; `program` is the one that opens them.
pub(super) fn closed(program: &str, saved: &str, hook: Hook, wanted: &[u16]) -> Option<Closed> {
    let filter = saved.split("*filter\n").nth(1)?.split("COMMIT").next()?;
    if !drops_the_rest(filter, &hook.name().to_uppercase()) {
        return None;
    }
    let is_closed = |port: &u16| !lets_pass(filter, hook, *port);
    let missing: Vec<u16> = wanted.iter().copied().filter(is_closed).collect();
    let remedy = match filter.lines().any(|line| line.starts_with(":ufw")) {
        true => remedy::of_ufw(hook, program.starts_with("ip6"), &missing),
        false => remedy::of_iptables(program, hook, &missing),
    };
    (!missing.is_empty()).then(|| Closed {
        ports: missing.into_iter().collect(),
        remedies: [remedy].into(),
    })
}

/// Tells whether some rule accepts a call that was redirected to this port.
pub(super) fn lets_pass(saved: &str, hook: Hook, port: u16) -> bool {
    let is_redirected = hook == Hook::Output || [ports::INBOUND, ports::OUTBOUND].contains(&port);
    accepted_ports(saved).iter().any(|range| range.contains(&port))
        || is_redirected && saved.lines().any(accepts_redirected)
        || hook == Hook::Output && saved.lines().any(accepts_this_vm)
}

/// By the chain's policy, or by a rule of it that drops or rejects whatever comes to it; and no rule before accepts all.
fn drops_the_rest(filter: &str, chain: &str) -> bool {
    let jump = format!("-A {chain} -j ");
    let ends = filter.lines().filter_map(|line| line.strip_prefix(&jump));
    let first = ends
        .filter_map(|target| target.split_whitespace().next())
        .find(|target| ["ACCEPT", "DROP", "REJECT"].contains(target));
    match first {
        Some(target) => target != "ACCEPT",
        None => {
            let dropped = format!(":{chain} DROP ");
            filter.lines().any(|line| line.starts_with(&dropped))
        }
    }
}

/// What is sent to this VM itself, by whatever interface.
fn accepts_this_vm(line: &str) -> bool {
    let is_to = [" -d 127.0.0.", " -d ::1/", " --dst-type LOCAL "]
        .iter()
        .any(|to| line.contains(to));
    line.starts_with("-A ") && is_to && !line.contains(" -o ") && line.trim_end().ends_with("-j ACCEPT")
}

/// What was redirected has another destination than it came with.
fn accepts_redirected(line: &str) -> bool {
    line.starts_with("-A ") && line.contains("--ctstate DNAT") && line.trim_end().ends_with("-j ACCEPT")
}

/// TCP ports that some rule accepts: by `--dport`, or by a list of the match `multiport` (iptables-extensions(8)).
fn accepted_ports(saved: &str) -> Vec<RangeInclusive<u16>> {
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
            let closed = closed("iptables-legacy", &saved, Hook::Input, &WANTED)?;
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
        assert_eq!(
            super::closed("iptables-legacy", "*filter\n", Hook::Input, &WANTED),
            None
        );
        assert_eq!(super::closed("iptables-legacy", "", Hook::Input, &WANTED), None);
    }

    #[test]
    fn legacy_firewall_that_lets_programs_call_some_ports_alone_is_named_with_its_command() {
        let closed = |program: &str, rules: &str| {
            let saved = format!("*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n{rules}COMMIT\n");
            let closed = closed(program, &saved, Hook::Output, &[15001, 15053])?;
            Some(closed.remedies.into_iter().collect::<Vec<_>>().join("; "))
        };
        let some = "-A OUTPUT -o lo -j ACCEPT\n-A OUTPUT -p tcp -m tcp --dport 7070 -j ACCEPT\n";
        for (program, command) in [
            ("iptables-legacy", "iptables-legacy -I OUTPUT -d 127.0.0.0/8 -j ACCEPT"),
            ("ip6tables-legacy", "ip6tables-legacy -I OUTPUT -d ::1 -j ACCEPT"),
        ] {
            assert_eq!(closed(program, some).as_deref(), Some(command));
        }
        let ufw = format!(":ufw-user-output - [0:0]\n{some}");
        assert_eq!(
            closed("iptables-legacy", &ufw).as_deref(),
            Some("ufw allow out to 127.0.0.0/8")
        );
        for open in [
            "-A OUTPUT -j ACCEPT\n",
            "-A OUTPUT -d 127.0.0.0/8 -j ACCEPT\n",
            "-A OUTPUT -d ::1/128 -j ACCEPT\n",
            "-A OUTPUT -m addrtype --dst-type LOCAL -j ACCEPT\n",
            "-A OUTPUT -m conntrack --ctstate DNAT -j ACCEPT\n",
        ] {
            assert_eq!(closed("iptables-legacy", open), None, "{open}");
        }
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
