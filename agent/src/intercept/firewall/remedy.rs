//! The command that has a firewall let redirected calls pass, of the program that keeps the chain.

use serde_json::Value;

use super::Hook;

/// For a chain of nftables, whoever made it.
pub(super) fn of(chain: &Value, rules: &[&Value], hook: Hook, ports: &[u16]) -> String {
    let text = |key: &str| chain[key].as_str().unwrap_or_default();
    let (family, table, name) = (text("family"), text("table"), text("name"));
    let is_v6 = family == "ip6";
    let is_ufw = rules
        .iter()
        .any(|rule| rule["chain"].as_str().unwrap_or_default().starts_with("ufw"));
    let is_iptables = ["ip", "ip6"].contains(&family) && table == "filter" && ["INPUT", "OUTPUT"].contains(&name);
    match hook {
        _ if is_ufw => of_ufw(hook, is_v6, ports),
        // A rule of nft's would have iptables say that it doesn't know the table any more.
        _ if is_iptables => of_iptables(if is_v6 { "ip6tables-nft" } else { "iptables-nft" }, hook, ports),
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

/// For a program of iptables(8).
pub(super) fn of_iptables(program: &str, hook: Hook, ports: &[u16]) -> String {
    match hook {
        Hook::Input => {
            let ports = joined(ports, ",");
            format!("{program} -I INPUT -p tcp -m multiport --dports {ports} -j ACCEPT")
        }
        Hook::Output => {
            let loopback = loopback(program.starts_with("ip6"));
            format!("{program} -I OUTPUT -d {loopback} -j ACCEPT")
        }
        Hook::LoopbackInput => format!("{program} -I INPUT -i lo -j ACCEPT"),
        Hook::LoopbackOutput => format!("{program} -I OUTPUT -o lo -j ACCEPT"),
    }
}

/// The addresses that calls out are redirected to.
fn loopback(is_v6: bool) -> &'static str {
    if is_v6 { "::1" } else { "127.0.0.0/8" }
}

fn joined(ports: &[u16], between: &str) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(between)
}
