//! Rules that are put into the kernel are seen there, and leave nothing behind.

use std::time::Instant;

use istio_vm_agent::config::Backend;
use istio_vm_agent::host::change::HostChange;
use istio_vm_agent::host::{FilterFamily, FilterTable};
use istio_vm_agent::intercept;

use super::FOREIGN;
use super::rig::*;

const OPERATOR: &str = "add table inet operator
add chain inet operator c { type filter hook input priority 0; }
add rule inet operator c tcp dport 9 drop
";

fn by_turns(backend: Backend, test: &str, foreign: bool) {
    let rig = Rig::new(test);
    if foreign {
        rig.feed("iptables-nft-restore --noflush", FOREIGN);
        rig.feed("nft -f -", OPERATOR);
    }
    let before = rig.snapshot();
    let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
    assert_eq!(rig.snapshot(), before, "choosing a backend changed the host");
    let planned = change.plan(&rig.host).unwrap().unwrap();
    assert!(planned.contains("15006"), "{planned}");
    assert!(!intercept::present(&rig.host).unwrap());
    assert_eq!(rig.snapshot(), before, "planning changed the host");

    let start = Instant::now();
    change.apply(&rig.host).unwrap();
    let applied = start.elapsed();
    let start = Instant::now();
    assert!(intercept::present(&rig.host).unwrap());
    let found = start.elapsed();
    assert_eq!(change.plan(&rig.host).unwrap(), None);
    let after = rig.vm("nft -s -a list ruleset");
    assert!(!change.ensure(&rig.host).unwrap());
    assert_eq!(rig.vm("nft -s -a list ruleset"), after, "a second apply did something");
    change.apply(&rig.host).unwrap();
    assert_eq!(change.plan(&rig.host).unwrap(), None);

    // Gone without a word: the next knows only the marks.
    drop(change);
    let start = Instant::now();
    intercept::owned_rules().revert(&rig.host).unwrap();
    println!(
        "{backend:?}: applied in {applied:?}, found in {found:?}, removed in {:?}",
        start.elapsed()
    );
    assert_eq!(rig.snapshot(), before);
    assert!(!intercept::present(&rig.host).unwrap());
    intercept::owned_rules().revert(&rig.host).unwrap();
    assert_eq!(rig.snapshot(), before);
}

#[test]
fn nftables_leaves_an_empty_host_as_it_was() {
    by_turns(Backend::Nftables, "nft-empty", false);
}

#[test]
fn nftables_leaves_foreign_rules_as_they_were() {
    by_turns(Backend::Nftables, "nft-foreign", true);
}

#[test]
fn iptables_leaves_an_empty_host_as_it_was() {
    by_turns(Backend::Iptables, "ipt-empty", false);
}

#[test]
fn iptables_leaves_foreign_rules_as_they_were() {
    by_turns(Backend::Iptables, "ipt-foreign", true);
}

#[test]
fn whatever_is_missing_is_seen_and_put_back() {
    let rig = Rig::new("drift");
    let cases = [
        (Backend::Nftables, "nft flush chain inet istio_vm_agent istio_inbound"),
        (Backend::Nftables, "nft delete table inet istio_vm_agent"),
        (
            Backend::Iptables,
            "iptables-nft -t nat -D ISTIO_INBOUND -p tcp --dport 3550 -j ISTIO_IN_REDIRECT",
        ),
        (Backend::Iptables, "ip6tables-nft -t nat -D OUTPUT -j ISTIO_OUTPUT"),
        (
            Backend::Iptables,
            "iptables-nft -t nat -I PREROUTING 1 -p tcp --dport 3550 -j ACCEPT",
        ),
        (Backend::Iptables, "iptables-nft -t raw -F"),
        (Backend::Iptables, "nft flush ruleset"),
    ];
    for (backend, damage) in cases {
        let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
        change.apply(&rig.host).unwrap();
        assert_eq!(change.plan(&rig.host).unwrap(), None);
        rig.vm(damage);
        assert!(change.plan(&rig.host).unwrap().is_some(), "{damage}");
        change.apply(&rig.host).unwrap();
        assert_eq!(change.plan(&rig.host).unwrap(), None, "{damage}");
    }
}

#[test]
fn plan_shows_the_rules_that_change_and_no_others() {
    let rig = Rig::new("respelled");
    let options = rig.options(Backend::Nftables);
    intercept::change(&membership(), &options)
        .unwrap()
        .apply(&rig.host)
        .unwrap();
    let before = rig.vm("nft list ruleset");
    let mut wider = membership();
    wider.inbound_ports.as_mut().unwrap().push(3551);
    let planned = intercept::change(&wider, &options)
        .unwrap()
        .plan(&rig.host)
        .unwrap()
        .unwrap();
    let changes: Vec<&str> = planned
        .lines()
        .filter(|line| {
            line.starts_with(['+', '-']) && !line.contains("comment \"rules ") && !line.contains(" nftables")
        })
        .collect();
    let is_meant = |line: &&str| line.contains(if line.starts_with('+') { "3551" } else { "3550" });
    assert!(!changes.is_empty() && changes.iter().all(is_meant), "{planned}");
    assert_eq!(rig.vm("nft list ruleset"), before, "planning changed the host");
}

/// IP's tables see nothing of it, so it has one of its own, beside either backend's.
#[test]
fn table_of_the_bridge_family_is_kept_and_removed() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("bridge");
        let mut options = rig.options(backend);
        options.bridge = Some(docker0());
        rig.vm("ip link add docker0 type bridge");
        rig.vm("ip link set docker0 addrgenmode none");
        rig.vm("ip addr add 172.17.0.1/16 dev docker0");
        let before = rig.snapshot();
        let change = intercept::change(&membership(), &options).unwrap();
        assert!(change.plan(&rig.host).unwrap().unwrap().contains("table bridge"));
        change.apply(&rig.host).unwrap();
        for damage in [
            "nft delete table bridge istio_vm_agent",
            "nft flush chain bridge istio_vm_agent bridge_forward",
        ] {
            assert_eq!(change.plan(&rig.host).unwrap(), None);
            rig.vm(damage);
            assert!(change.plan(&rig.host).unwrap().is_some(), "{backend:?}: {damage}");
            change.apply(&rig.host).unwrap();
        }
        assert_eq!(change.plan(&rig.host).unwrap(), None);
        intercept::owned_rules().revert(&rig.host).unwrap();
        assert_eq!(rig.snapshot(), before);
        change.apply(&rig.host).unwrap();
        let without = intercept::change(&membership(), &rig.options(backend)).unwrap();
        assert!(without.plan(&rig.host).unwrap().is_some());
        without.apply(&rig.host).unwrap();
        assert!(!rig.snapshot().contains("table bridge"), "{}", rig.snapshot());
    }
}

#[test]
fn another_configuration_s_rules_are_replaced_and_removed() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("reconf");
        let before = rig.snapshot();
        let mut all = membership();
        all.inbound_ports = None;
        intercept::change(&all, &rig.options(backend))
            .unwrap()
            .apply(&rig.host)
            .unwrap();
        let mut no_dns = membership();
        no_dns.dns_capture = false;
        let change = intercept::change(&no_dns, &rig.options(backend)).unwrap();
        assert!(change.plan(&rig.host).unwrap().is_some());
        change.apply(&rig.host).unwrap();
        assert_eq!(change.plan(&rig.host).unwrap(), None);
        assert!(!rig.snapshot().contains("15053"), "{}", rig.snapshot());
        intercept::owned_rules().revert(&rig.host).unwrap();
        assert_eq!(rig.snapshot(), before);
    }
}

/// The kernel tells of tables, chains and rules in a list each, and somebody's change may lie between two of them.
#[test]
fn table_that_comes_and_goes_is_seen_whole_or_not_at_all() {
    const ROUNDS: usize = 100;
    let rig = Rig::new("whole");
    rig.feed("nft -f -", OPERATOR);
    let look = |kernel: &istio_vm_agent::host::PacketFilter| kernel.table(FilterFamily::Inet, "operator").unwrap();
    let kernel = rig.host.packet_filter().unwrap();
    let whole = look(&kernel).unwrap();
    assert_eq!(whole.chains.get("c"), Some(&1));
    let mut seen: Vec<Option<FilterTable>> = Vec::new();
    std::thread::scope(|scope| {
        let changing = scope.spawn(|| {
            for _ in 0..ROUNDS {
                rig.vm("nft delete table inet operator");
                rig.feed("nft -f -", OPERATOR);
            }
        });
        while !changing.is_finished() {
            seen.push(look(&kernel));
        }
        changing.join().unwrap();
    });
    assert!(
        seen.contains(&None),
        "the table was never seen away in {} looks",
        seen.len()
    );
    let torn = seen.iter().flatten().find(|table| **table != whole);
    assert_eq!(torn, None, "of {} looks", seen.len());
}
