//! Lists of ports in the output of iptables-save(8).

use std::ops::RangeInclusive;

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
