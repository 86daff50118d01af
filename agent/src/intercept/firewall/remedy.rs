//! The command that has a firewall let redirected calls pass, of the program that keeps the chain.

use serde_json::Value;

use super::{Hook, Target, Way, is_own, word};
use crate::config::ports;

/// Tables of iptables.
const TABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// For a chain of nftables, whoever made it.
pub(super) fn of(chain: &Value, rules: &[&Value], way: Way<'_>, targets: &[Target]) -> String {
    let (family, table, name) = (word(&chain["family"]), word(&chain["table"]), word(&chain["name"]));
    let is_v6 = family == "ip6";
    let is_ufw = rules.iter().any(|rule| word(&rule["chain"]).starts_with("ufw"));
    let is_iptables = ["ip", "ip6"].contains(&family) && TABLES.contains(&table) && ["INPUT", "OUTPUT"].contains(&name);
    if is_ufw {
        return of_ufw(way, is_v6, targets);
    }
    // A rule of nft's would have iptables say that it doesn't know the table any more.
    if is_iptables {
        let program = if is_v6 { "ip6tables-nft" } else { "iptables-nft" };
        let program = match table {
            "filter" => program.to_owned(),
            _ => format!("{program} -t {table}"),
        };
        // What would be accepted before our own rules would pass them by.
        let ours = rules.iter().filter(|rule| rule["chain"] == name && leads_to_ours(rule));
        return of_iptables(&program, ours.count(), way, targets);
    }
    let insert = |matches: &str| format!("nft insert rule {family} {table} {name} {matches} accept");
    match way.hook {
        Hook::Input if table == "firewalld" => {
            let ports = targets
                .iter()
                .map(|target| format!(" --add-port={}/{}", target.port, protocol(target.udp)));
            format!(
                "firewall-cmd --permanent{} && firewall-cmd --reload",
                ports.collect::<String>()
            )
        }
        Hook::Input => each_protocol(targets, |protocol, ports| {
            let by = way
                .by
                .map(|interface| format!("iifname {interface} "))
                .unwrap_or_default();
            insert(&format!("{by}{protocol} dport {{ {} }}", joined(ports, ", ")))
        }),
        Hook::Agent => insert(&format!("tcp dport {{ {} }}", joined(&numbers(targets), ", "))),
        Hook::Output => insert("fib daddr type local"),
        Hook::LoopbackInput => insert("iif lo"),
        Hook::LoopbackOutput => insert("oif lo"),
        Hook::Envoy => insert(&format!("meta skuid {}", ports::PROXY_UID)),
    }
}

/// For ufw(8).
pub(super) fn of_ufw(way: Way<'_>, is_v6: bool, targets: &[Target]) -> String {
    match way.hook {
        Hook::Input => each_protocol(targets, |protocol, ports| match way.by {
            Some(interface) => format!(
                "ufw allow in on {interface} to any port {} proto {protocol}",
                joined(ports, ",")
            ),
            None => format!("ufw allow {}/{protocol}", joined(ports, ",")),
        }),
        Hook::Agent => format!("ufw allow out {}/tcp", joined(&numbers(targets), ",")),
        Hook::Output => format!("ufw allow out to {}", loopback(is_v6)),
        Hook::LoopbackInput => "ufw allow in on lo".to_owned(),
        Hook::LoopbackOutput => "ufw allow out on lo".to_owned(),
        // None of its own rules is for a user.
        Hook::Envoy => {
            let version = if is_v6 { "6" } else { "" };
            let rule = format!("-A ufw{version}-before-output {} -j ACCEPT", of_envoy());
            format!("sed -i '/^# End required lines/a {rule}' /etc/ufw/before{version}.rules && ufw reload")
        }
    }
}

/// For a program of iptables(8), behind the first rules of the chain.
pub(super) fn of_iptables(program: &str, behind: usize, way: Way<'_>, targets: &[Target]) -> String {
    let name = way.hook.name().to_uppercase();
    let place = match behind {
        0 => name,
        _ => format!("{name} {}", behind + 1),
    };
    let insert = |matches: &str| format!("{program} -I {place} {matches} -j ACCEPT");
    match way.hook {
        Hook::Input => each_protocol(targets, |protocol, ports| {
            let by = way.by.map(|interface| format!("-i {interface} ")).unwrap_or_default();
            insert(&format!(
                "{by}-p {protocol} -m multiport --dports {}",
                joined(ports, ",")
            ))
        }),
        Hook::Agent => insert(&format!(
            "-p tcp -m multiport --dports {}",
            joined(&numbers(targets), ",")
        )),
        Hook::Output => insert(&format!("-d {}", loopback(program.starts_with("ip6")))),
        Hook::LoopbackInput => insert("-i lo"),
        Hook::LoopbackOutput => insert("-o lo"),
        Hook::Envoy => insert(&of_envoy()),
    }
}

/// A command for the ports of TCP, and one for those of UDP.
fn each_protocol(targets: &[Target], command: impl Fn(&str, &[u16]) -> String) -> String {
    let commands = [false, true].into_iter().filter_map(|udp| {
        let of_it = targets.iter().filter(|target| target.udp == udp);
        let ports: Vec<u16> = of_it.map(|target| target.port).collect();
        (!ports.is_empty()).then(|| command(protocol(udp), &ports))
    });
    commands.collect::<Vec<_>>().join(" && ")
}

fn numbers(targets: &[Target]) -> Vec<u16> {
    targets.iter().map(|target| target.port).collect()
}

fn protocol(udp: bool) -> &'static str {
    if udp { "udp" } else { "tcp" }
}

fn leads_to_ours(rule: &Value) -> bool {
    let mut expressions = rule["expr"].as_array().into_iter().flatten();
    expressions.any(|it| is_own(word(&it["jump"]["target"])))
}

fn of_envoy() -> String {
    format!("-m owner --uid-owner {}", ports::PROXY_UID)
}

/// The addresses that calls out are redirected to.
fn loopback(is_v6: bool) -> &'static str {
    if is_v6 { "::1" } else { "127.0.0.0/8" }
}

fn joined(ports: &[u16], between: &str) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(between)
}
