//! A fix that is a command is run as it is printed, and the trouble is gone.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::mesh::Mesh;
use e2e::network::{EtcView, Host};
use serde_json::Value;

/// What brings a VM into trouble, and the finding that says so.
const TROUBLES: &[(&str, &str)] = &[
    ("chmod 0666 $CONFIG", "IVA103"),
    ("chown nobody $CONFIG", "IVA103"),
    ("chmod 0644 $BUNDLE/istio-token", "IVA103"),
    ("sysctl -w net.ipv4.ip_local_port_range='10000 60999'", "IVA108"),
    (
        "sed -i /^istio-proxy:/d /etc/passwd /etc/group
         echo istio-proxy:x:61337: >>/etc/group
         echo istio-proxy:x:61337:61337::/nonexistent:/bin/sh >>/etc/passwd",
        "IVA110",
    ),
    (
        "nft 'table inet filter { chain input { type filter hook input priority 0; policy drop; iifname lo accept; \
         ct state established,related accept; meta l4proto ipv6-icmp accept; tcp dport { 22, 3550, 15012 } accept; }; }'",
        "IVA602",
    ),
    (
        "nft 'table inet out { chain output { type filter hook output priority 0; policy drop; oif lo accept; \
         ct state established,related accept; meta l4proto ipv6-icmp accept; tcp dport 15012 accept; }; }'",
        "IVA602",
    ),
    ("sysctl -w net.ipv4.tcp_fastopen=3", "IVA605"),
    ("printf 'nameserver 10.200.0.2\\r\\n' >/etc/resolv.conf", "IVA701"),
    (
        "echo 'hosts: files resolve [!UNAVAIL=return] dns' >/etc/nsswitch.conf",
        "IVA702",
    ),
];

pub(super) fn lead_out(mesh: &mut Mesh) -> Result<()> {
    for (trouble, code) in TROUBLES {
        follow(mesh, code)?;
        shell(mesh, trouble)?;
        ensure!(!amiss(mesh, code)?.is_empty(), "{code} is fine after {trouble}");
        follow(mesh, code)?;
        let after = amiss(mesh, code)?;
        ensure!(after.is_empty(), "{trouble}, and the fixes followed: {after:?}");
    }
    Ok(())
}

/// Runs the fix of each finding that is not fine.
fn follow(mesh: &Mesh, code: &str) -> Result<()> {
    for found in amiss(mesh, code)? {
        let fix = found["fix"].as_str().with_context(|| format!("no fix: {found}"))?;
        // What stands after a comma is for the next boot.
        let (command, _) = fix.split_once(", and").unwrap_or((fix, ""));
        shell(mesh, command)?;
    }
    Ok(())
}

/// The findings of a code that are not fine.
fn amiss(mesh: &Mesh, code: &str) -> Result<Vec<Value>> {
    let output = mesh
        .vm
        .agent(&mesh.network, &["check", "--only", code, "--output", "json"])?;
    let findings = super::findings(&output)?;
    let all = findings
        .as_array()
        .filter(|all| !all.is_empty())
        .with_context(|| format!("no {code}: {output:?}"))?;
    Ok(all.iter().filter(|it| it["level"] != "ok").cloned().collect())
}

/// A root's shell on the VM.
fn shell(mesh: &Mesh, script: &str) -> Result<()> {
    let mut shell: Command = mesh.network.command(Host::Vm, EtcView::Plain, "sh");
    shell.args(["-ec", script]);
    shell.env("CONFIG", mesh.vm.config()).env("BUNDLE", mesh.vm.bundle());
    let output = shell.output()?;
    ensure!(output.status.success(), "{script}: {output:?}");
    Ok(())
}
