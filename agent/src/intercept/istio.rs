//! Rules that Istio's own tools put into the kernel and our marks don't find: rules in netfilter's chains that name no
//! chain of Istio's, its nftables tables, TPROXY's routes. Found in the kernel, not by what a configuration would put there
//! now. The address ::6 that istio-iptables gives lo stays: this agent's Envoy calls the application from it too.

use anyhow::{Context, Result};

use super::iptables::{self, IstioRules};
use crate::host::{CommandError, Host, Invocation};

/// Istio's native tables (tools/istio-nftables/pkg/constants).
const NFT_TABLES: [&str; 3] = ["istio-proxy-nat", "istio-proxy-mangle", "istio-proxy-raw"];

/// Takes them out. The chains ISTIO_* are not among them: those are `owned_rules()`, and may be ours. Tables of iptables
/// over nftables that are empty then go too, for iptables makes them when it looks, and again when it needs one.
///
/// # Errors
/// When the kernel refuses; what comes after is tried all the same.
pub fn remove_istio(host: &Host, rules: &IstioRules) -> Result<()> {
    let failures: Vec<String> = [
        iptables::remove_istio_leftovers(host, rules).context("rules of iptables"),
        remove_tables(host).context("tables of nftables"),
        remove_routes(host, rules).context("routes"),
        iptables::sweep_bare(host).context("empty tables"),
    ]
    .into_iter()
    .filter_map(|done| done.err().map(|error| format!("{error:#}")))
    .collect();
    anyhow::ensure!(
        failures.is_empty(),
        "failed to remove what Istio's own agent left: {}",
        failures.join("; ")
    );
    Ok(())
}

fn remove_tables(host: &Host) -> Result<()> {
    let listed = answer(host, &["nft", "list", "tables", "inet"])?;
    let script: String = listed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("table inet "))
        .filter(|name| NFT_TABLES.contains(name))
        .map(|name| format!("delete table inet {name}\n"))
        .collect();
    if !script.is_empty() {
        host.run(&Invocation::new(["nft", "-f", "-"]).with_stdin(script))?;
    }
    Ok(())
}

fn remove_routes(host: &Host, rules: &IstioRules) -> Result<()> {
    let (mark, table) = (rules.mark.to_string(), rules.table.to_string());
    let by_mark = format!("fwmark {:#x} lookup {table}", rules.mark);
    for family in ["-4", "-6"] {
        // Each start of its adds another one.
        let listed = answer(host, &["ip", family, "rule"])?;
        for _ in listed.lines().filter(|line| line.contains(&by_mark)) {
            host.run(&Invocation::new([
                "ip", family, "rule", "del", "fwmark", &mark, "lookup", &table,
            ]))?;
        }
        let routes = answer(host, &["ip", family, "route", "show", "table", &table])?;
        if routes.lines().any(|line| line.starts_with("local default dev lo")) {
            host.run(&Invocation::new([
                "ip", family, "route", "del", "local", "default", "dev", "lo", "table", &table,
            ]))?;
        }
    }
    Ok(())
}

/// A tool's answer; empty when it isn't installed, or knows no such table.
fn answer(host: &Host, argv: &[&str]) -> Result<String> {
    match host.run(&Invocation::new(argv.iter().copied())) {
        Ok(text) => Ok(text),
        Err(CommandError::NotFound { .. } | CommandError::Failed { .. }) => Ok(String::new()),
        Err(error) => Err(error.into()),
    }
}
