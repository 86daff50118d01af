//! Other programs' rules in the output of iptables-save(8).

use std::ops::RangeInclusive;

use super::rule::{Condition, Rule, Verdict};
use super::{Closed, Target, Way, missing, remedy};
use crate::config::ports;

/// The ports of `wanted` that the legacy filter's INPUT or OUTPUT drops; `program` is the one that opens them.
pub(super) fn closed(program: &str, saved: &str, way: Way<'_>, wanted: &[Target]) -> Option<Closed> {
    let chain = way.hook.name().to_uppercase();
    let (rules, dropping) = table(saved, "filter");
    let missing = missing(&rules, &chain, dropping.contains(&chain), way, wanted)?;
    let remedy = match rules.iter().any(|rule| rule.chain.starts_with("ufw")) || saved.contains("\n:ufw") {
        true => remedy::of_ufw(way, program.starts_with("ip6"), &missing.targets),
        false => remedy::of_iptables(program, 0, way, &missing.targets),
    };
    Some(missing.closed(remedy))
}

/// The rules of a table, and its chains that drop what no rule decides.
pub(super) fn table(saved: &str, name: &str) -> (Vec<Rule>, Vec<String>) {
    let dropping = |line: &str| Some(line.strip_prefix(':')?.split_once(" DROP ")?.0.to_owned());
    (
        lines(saved, name).filter_map(rule).collect(),
        lines(saved, name).filter_map(dropping).collect(),
    )
}

/// The lines of a table.
pub(super) fn lines<'a>(saved: &'a str, table: &str) -> impl Iterator<Item = &'a str> + use<'a> {
    let table = saved.split(&format!("*{table}\n")).nth(1).unwrap_or_default();
    table.lines().take_while(|line| *line != "COMMIT")
}

/// A line of a rule; of the words that say how something is done only those of the verdict matter.
pub(super) fn rule(line: &str) -> Option<Rule> {
    let mut words = words(line).into_iter().peekable();
    words.next().filter(|word| *word == "-A")?;
    let chain = words.next()?.to_owned();
    let (mut conditions, mut is_negated) = (Vec::new(), false);
    while let Some(word) = words.next() {
        match word {
            "!" => {
                is_negated = true;
                continue;
            }
            "-m" | "--comment" => _ = words.next(),
            "-j" | "-g" => {
                let target = words.next()?;
                let verdict = match target {
                    "NOTRACK" => Verdict::Untrack,
                    "CT" if words.any(|word| word == "--notrack" || word.starts_with("--zone")) => Verdict::Untrack,
                    _ => verdict(word, target),
                };
                return Some(Rule {
                    chain,
                    conditions,
                    verdict,
                });
            }
            option => {
                let mut values = std::iter::from_fn(|| words.next_if(|word| !word.starts_with(['-', '!'])));
                conditions.push(condition(option, values.next().unwrap_or_default(), !is_negated));
                values.for_each(drop);
            }
        }
        is_negated = false;
    }
    None
}

/// Words of a line, of which one in quotes may have blanks.
fn words(line: &str) -> Vec<&str> {
    let quoted = line.split('"').enumerate();
    quoted
        .flat_map(|(at, part)| match at % 2 {
            0 => part.split_whitespace().collect(),
            _ => vec![part],
        })
        .collect()
}

fn verdict(option: &str, target: &str) -> Verdict {
    match target {
        "ACCEPT" => Verdict::Accept,
        "DROP" | "REJECT" => Verdict::Drop,
        "DNAT" | "REDIRECT" => Verdict::Rewrite,
        "RETURN" => Verdict::Return,
        chain if option == "-g" => Verdict::Goto(chain.to_owned()),
        chain => Verdict::Jump(chain.to_owned()),
    }
}

fn condition(option: &str, value: &str, holds: bool) -> Condition {
    let has = |word: &str| value.split(',').any(|it| it == word) == holds;
    match option {
        "-p" => Condition::protocol(&[value], holds),
        "--dport" | "--dports" => ranges(value).map_or(Condition::Unknown, |ranges| Condition::Ports(ranges, holds)),
        "--sport" | "--sports" => {
            ranges(value).map_or(Condition::Unknown, |ranges| Condition::SourcePorts(ranges, holds))
        }
        "-i" | "-o" => Condition::interface(&[value], holds),
        "--ctstate" | "--state" if value == "DNAT" && holds => Condition::Redirected,
        "--ctstate" | "--state" => Condition::New(has("NEW")),
        "-s" if holds => Condition::From(value.to_owned()),
        "-d" => Condition::to(value.split('/').next().unwrap_or_default(), holds),
        "--uid-owner" | "--gid-owner" => {
            has_proxy(value).map_or(Condition::Unknown, |has| Condition::Owner(has == holds))
        }
        "--dst-type" if has("LOCAL") => Condition::Local,
        _ => Condition::Unknown,
    }
}

/// True when Envoy's user or group is this one, or in this range.
fn has_proxy(value: &str) -> Option<bool> {
    let (first, last) = value.split_once('-').unwrap_or((value, value));
    let range = first.parse().ok()?..=last.parse().ok()?;
    Some(range.contains(&ports::PROXY_UID))
}

fn ranges(list: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let range = |item: &str| {
        let (first, last) = item.split_once(':').unwrap_or((item, item));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::intercept::firewall::Hook;

    const WANTED: [Target; 2] = [
        Target {
            port: 15006,
            udp: false,
            is_redirected: true,
        },
        Target {
            port: 15021,
            udp: false,
            is_redirected: false,
        },
    ];

    #[test]
    fn legacy_firewall_that_knows_the_application_alone_is_named_with_its_command() {
        let closed = |policy: &str, rules: &str| {
            let saved = format!("*nat\n:INPUT DROP [0:0]\nCOMMIT\n*filter\n:INPUT {policy} [0:0]\n{rules}COMMIT\n");
            let closed = closed("iptables-legacy", &saved, Way::of(Hook::Input), &WANTED)?;
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
            ("DROP", "-A INPUT -i eth0 -j ACCEPT\n"),
            ("ACCEPT", "-A INPUT -i eth1 -j DROP\n"),
            ("ACCEPT", "-A INPUT -d 127.0.0.0/8 ! -i lo -j REJECT\n"),
        ] {
            assert_eq!(closed(policy, rules), None, "{rules}");
        }
        assert_eq!(
            super::closed("iptables-legacy", "*filter\n", Way::of(Hook::Input), &WANTED),
            None
        );
        assert_eq!(
            super::closed("iptables-legacy", "", Way::of(Hook::Input), &WANTED),
            None
        );
    }

    #[test]
    fn legacy_firewall_that_lets_programs_call_some_ports_alone_is_named_with_its_command() {
        let closed = |program: &str, rules: &str| {
            let saved = format!("*filter\n:INPUT ACCEPT [0:0]\n:OUTPUT DROP [0:0]\n{rules}COMMIT\n");
            let closed = closed(
                program,
                &saved,
                Way::of(Hook::Output),
                &[15001, 15053].map(Target::redirected),
            )?;
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
}
