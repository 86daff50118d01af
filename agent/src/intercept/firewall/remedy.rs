//! The command that has a firewall let redirected calls pass, of the program that keeps the chain.

use serde_json::Value;

use super::{Hook, is_own, word};

/// Those of iptables.
const TABLES: [&str; 5] = ["filter", "mangle", "nat", "raw", "security"];

/// For a chain of nftables, whoever made it.
pub(super) fn of(chain: &Value, rules: &[&Value], hook: Hook, ports: &[u16]) -> String {
    let (family, table, name) = (word(&chain["family"]), word(&chain["table"]), word(&chain["name"]));
    let is_v6 = family == "ip6";
    let is_ufw = rules.iter().any(|rule| word(&rule["chain"]).starts_with("ufw"));
    let is_iptables = ["ip", "ip6"].contains(&family) && TABLES.contains(&table) && ["INPUT", "OUTPUT"].contains(&name);
    match hook {
        _ if is_ufw => of_ufw(hook, is_v6, ports),
        // A rule of nft's would have iptables say that it doesn't know the table any more.
        _ if is_iptables => {
            let program = if is_v6 { "ip6tables-nft" } else { "iptables-nft" };
            let program = match table {
                "filter" => program.to_owned(),
                _ => format!("{program} -t {table}"),
            };
            // What would be accepted before our own rules would pass them by.
            let ours = rules.iter().filter(|rule| rule["chain"] == name && leads_to_ours(rule));
            of_iptables(&program, ours.count(), hook, ports)
        }
        Hook::Input if table == "firewalld" => {
            let ports: String = ports.iter().map(|port| format!(" --add-port={port}/tcp")).collect();
            format!("firewall-cmd --permanent{ports} && firewall-cmd --reload")
        }
        Hook::Input => {
            let ports = joined(ports, ", ");
            format!("nft insert rule {family} {table} {name} tcp dport {{ {ports} }} accept")
        }
        Hook::Output => format!("nft insert rule {family} {table} {name} fib daddr type local accept"),
        Hook::LoopbackInput => format!("nft insert rule {family} {table} {name} iif lo accept"),
        Hook::LoopbackOutput => format!("nft insert rule {family} {table} {name} oif lo accept"),
    }
}

/// For ufw(8).
pub(super) fn of_ufw(hook: Hook, is_v6: bool, ports: &[u16]) -> String {
    match hook {
        Hook::Input => format!("ufw allow {}/tcp", joined(ports, ",")),
        Hook::Output => format!("ufw allow out to {}", loopback(is_v6)),
        Hook::LoopbackInput => "ufw allow in on lo".to_owned(),
        Hook::LoopbackOutput => "ufw allow out on lo".to_owned(),
    }
}

/// For a program of iptables(8), behind the first rules of the chain.
pub(super) fn of_iptables(program: &str, behind: usize, hook: Hook, ports: &[u16]) -> String {
    let matches = match hook {
        Hook::Input => format!("-p tcp -m multiport --dports {}", joined(ports, ",")),
        Hook::Output => format!("-d {}", loopback(program.starts_with("ip6"))),
        Hook::LoopbackInput => "-i lo".to_owned(),
        Hook::LoopbackOutput => "-o lo".to_owned(),
    };
    let place = match behind {
        0 => hook.name().to_uppercase(),
        _ => format!("{} {}", hook.name().to_uppercase(), behind + 1),
    };
    format!("{program} -I {place} {matches} -j ACCEPT")
}

fn leads_to_ours(rule: &Value) -> bool {
    let mut expressions = rule["expr"].as_array().into_iter().flatten();
    expressions.any(|it| is_own(word(&it["jump"]["target"])))
}

/// The addresses that calls out are redirected to.
fn loopback(is_v6: bool) -> &'static str {
    if is_v6 { "::1" } else { "127.0.0.0/8" }
}

fn joined(ports: &[u16], between: &str) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(between)
}
