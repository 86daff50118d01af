//! A fix that is a command is run as it is printed, and the trouble is gone.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use e2e::mesh::Mesh;
use e2e::network::{EtcView, Host};
use serde_json::Value;

/// Commands that bring a VM into trouble, each with the finding that says so.
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
    ("sed -i '/^istio-proxy:/s/:1337:/:61337:/' /etc/group", "IVA110"),
    ("sed -i '/^istio-proxy:/s/$/nobody/' /etc/group", "IVA110"),
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
    ("chattr +i /etc/hosts", "IVA704"),
];

/// Commands that bring a VM into trouble, the finding that says so, words of its fix, and an operator's act by them.
const IN_WORDS: &[(&str, &str, &str, &str)] = &[
    (
        "python3 -c 'import socket, time; s = socket.create_server((\"0.0.0.0\", 15006)); time.sleep(600)' >/dev/null 2>&1 &
         echo $! >$BUNDLE.pid; until ss -tln | grep -q :15006; do :; done",
        "IVA107",
        "end that program",
        "kill $(cat $BUNDLE.pid); while ss -tln | grep -q :15006; do :; done",
    ),
    (
        "rm -rf $STATE && : >$STATE",
        "IVA112",
        "a directory that root can write",
        "rm $STATE && mkdir $STATE",
    ),
    (
        "ip route del default",
        "IVA114",
        "`ip route add default via GATEWAY`",
        "ip route add default via 10.200.0.1",
    ),
    (
        "ip rule add unreachable uidrange 1337-1337 priority 100",
        "IVA114",
        "leave user 1337 out of the rule",
        "ip rule del priority 100",
    ),
    (
        "sed -i '/^address/s/=.*/= \"10.9.9.9\"/' $CONFIG",
        "IVA203",
        "or remove it",
        "sed -i /^address/d $CONFIG",
    ),
    (
        "mv $BUNDLE/hosts $BUNDLE.hosts && : >$BUNDLE/hosts",
        "IVA301",
        "into its hosts file",
        "echo \"$(awk '{ print $1; exit }' $BUNDLE.hosts) istiod.istio-system.svc\" >$BUNDLE/hosts",
    ),
    (
        "mv $BUNDLE/istio-token $BUNDLE.token",
        "IVA402",
        "make a new bundle",
        "mv $BUNDLE.token $BUNDLE/istio-token",
    ),
    (
        "cp /etc/resolv.conf $BUNDLE.resolv && echo nameserver 10.200.0.99 >/etc/resolv.conf",
        "IVA703",
        "name others in /etc/resolv.conf: `nameserver ADDRESS`",
        "cat $BUNDLE.resolv >/etc/resolv.conf",
    ),
    (
        "mv $ENVOY $ENVOY.away",
        "IVA501",
        "a working Envoy that user istio-proxy may execute",
        "mv $ENVOY.away $ENVOY",
    ),
];

pub(super) fn lead_out_in_words(mesh: &mut Mesh) -> Result<()> {
    for (trouble, code, words, act) in IN_WORDS {
        let before: Vec<_> = amiss(mesh, code)?;
        shell(mesh, trouble)?;
        let found = amiss(mesh, code)?;
        ensure!(found != before, "{code} says nothing after {trouble}");
        ensure!(
            found
                .iter()
                .any(|it| it["fix"].as_str().is_some_and(|fix| fix.contains(words))),
            "{found:?}"
        );
        shell(mesh, act)?;
        let after = amiss(mesh, code)?;
        ensure!(causes(&after) == causes(&before), "{trouble}, and {act}: {after:?}");
    }
    Ok(())
}

/// Causes of findings, without the kernel's words: it tells a refused datagram once a second.
fn causes(findings: &[Value]) -> Vec<&str> {
    let details = findings.iter().filter_map(|it| it["detail"].as_str());
    details
        .map(|detail| detail.split_once(" (").map_or(detail, |(cause, _)| cause))
        .collect()
}

pub(super) fn lead_out(mesh: &mut Mesh) -> Result<()> {
    let led = lead_out_of_each(mesh);
    // Else nobody could take the case's folder away.
    shell(mesh, "chattr -i /etc/hosts")?;
    led
}

fn lead_out_of_each(mesh: &Mesh) -> Result<()> {
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
        let fix = fix(&found)?;
        // What stands after a comma is for the next boot.
        let (command, _) = fix.split_once(", and").unwrap_or((fix, ""));
        shell(mesh, command)?;
    }
    Ok(())
}

/// The fix that a finding names.
pub(super) fn fix(found: &Value) -> Result<&str> {
    found["fix"].as_str().with_context(|| format!("no fix: {found}"))
}

/// The findings of a code that are not fine.
pub(super) fn amiss(mesh: &Mesh, code: &str) -> Result<Vec<Value>> {
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
pub(super) fn shell(mesh: &Mesh, script: &str) -> Result<()> {
    let mut shell: Command = mesh.network.command(Host::Vm, EtcView::Plain, "sh");
    shell.args(["-ec", script]);
    shell.env("CONFIG", mesh.vm.config()).env("BUNDLE", mesh.vm.bundle());
    shell.env("STATE", mesh.vm.state_folder()).env("ENVOY", mesh.vm.envoy());
    let output = shell.output()?;
    ensure!(output.status.success(), "{script}: {output:?}");
    Ok(())
}
