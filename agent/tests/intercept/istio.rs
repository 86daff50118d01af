//! Rules of istio-iptables and istio-nftables are taken out whole, whatever those were told.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use istio_vm_agent::host::change::HostChange;
use istio_vm_agent::intercept::{self, IstioRules};

use super::FOREIGN;
use super::rig::*;

/// One start of istio-iptables in TPROXY mode, and one of a cleanup, which adds another rule.
const ROUTES: [&str; 5] = [
    "ip rule add fwmark 1337 lookup 133",
    "ip rule add fwmark 1337 lookup 133",
    "ip -6 rule add fwmark 1337 lookup 133",
    "ip route add local default dev lo table 133",
    "ip -6 route add local default dev lo table 133",
];

const NATIVE: &str = "add table inet istio-proxy-nat
add chain inet istio-proxy-nat output { type nat hook output priority -100; }
add table inet istio-proxy-raw
";

/// The reference cases that put rules of every kind there is into the kernel's own chains.
const GOLDENS: [&str; 5] = [
    "tproxy",
    "ipv6-virt-interfaces",
    "drop-invalid",
    "basic-exclude-nic",
    "vm-productcatalog",
];

fn golden(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/iptables");
    fs::read_to_string(folder.join(format!("{name}.golden"))).unwrap()
}

/// A golden's input of iptables-restore and of ip6tables-restore: each table comes once a family.
fn families(text: &str) -> [String; 2] {
    let mut families = [String::new(), String::new()];
    let mut seen = BTreeSet::new();
    let mut family = 0;
    for line in text.lines().filter(|line| !line.ends_with("-save")) {
        if let Some(table) = line.strip_prefix('*') {
            family = usize::from(family == 1 || !seen.insert(table.trim()));
            families[family] += &format!("*{}\n", table.trim());
        } else {
            families[family] += &format!("{line}\n");
        }
    }
    families
}

/// Every interface that a rule names, but lo.
fn interfaces(text: &str) -> Vec<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let named = words
        .windows(2)
        .filter(|pair| ["-i", "-o"].contains(&pair[0]) && pair[1] != "lo");
    let named: BTreeSet<String> = named.map(|pair| pair[1].to_owned()).collect();
    named.into_iter().collect()
}

fn taken_out(test: &str, kind: &str) {
    // With ::6 on its lo, as istio-iptables leaves it: Envoy calls the application from there, whoever started it.
    let rig = Rig::new(test);
    for family in ["iptables", "ip6tables"] {
        // A legacy table can't be deleted; from here on they are the operator's.
        for table in ["nat", "mangle", "raw"].into_iter().filter(|_| kind == "legacy") {
            rig.vm(&format!("{family}-legacy -t {table} -S"));
        }
        rig.feed(&format!("{family}-{kind}-restore --noflush"), FOREIGN_ANYWHERE);
    }
    if kind == "nft" {
        rig.feed("iptables-nft-restore --noflush", FOREIGN);
    }
    let before = state(&rig);
    for name in GOLDENS {
        let text = golden(name);
        for (family, rules) in ["iptables", "ip6tables"].into_iter().zip(families(&text)) {
            rig.feed(&format!("{family}-{kind}-restore --noflush"), &rules);
        }
        for line in ROUTES {
            rig.vm(line);
        }
        rig.feed("nft -f -", NATIVE);
        assert_ne!(state(&rig), before);
        let istio = IstioRules {
            interfaces: interfaces(&text),
            mark: 1337,
            table: 133,
        };
        for _ in 0..2 {
            take_out(&rig, &istio);
            assert_eq!(state(&rig), before, "{name}");
        }
    }
}

/// Without the packets that the kernel's own chains have counted.
fn state(rig: &Rig) -> String {
    let snapshot = rig.snapshot();
    let lines = snapshot.lines().map(|line| match line.split_once(" [") {
        Some((chain, _)) if line.starts_with(':') => chain,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// In the namespace itself: which legacy tables there are is read from /proc.
fn take_out(rig: &Rig, istio: &IstioRules) {
    rig.at(&rig.vm, Who::Root, || {
        intercept::owned_rules().revert(&rig.host).unwrap();
        intercept::remove_istio(&rig.host, istio).unwrap();
    });
}

/// An operator's, near in form to Istio's, in every chain that Istio uses: a chain of the kernel's that is first used
/// stays as an empty one.
const FOREIGN_ANYWHERE: &str = "*nat
-A PREROUTING -i operator0 -j RETURN
-A OUTPUT -o operator0 -j RETURN
COMMIT
*mangle
-A PREROUTING -p tcp -m mark --mark 0x1 -j CONNMARK --save-mark
-A OUTPUT -o lo -p tcp -m mark --mark 0x1 -j RETURN
COMMIT
";

#[test]
fn rules_of_istio_iptables_over_nftables_are_taken_out() {
    taken_out("istio-nft", "nft");
}

#[test]
fn rules_of_istio_iptables_legacy_are_taken_out() {
    taken_out("istio-leg", "legacy");
}

#[test]
fn tables_that_its_look_has_made_go_too() {
    let rig = Rig::new("istio-bare");
    rig.vm("ip addr del ::6/128 dev lo");
    let before = rig.snapshot();
    rig.feed(
        "iptables-nft-restore --noflush",
        "*nat\n-N X\nCOMMIT\n*raw\n:OUTPUT DROP [0:0]\nCOMMIT\n",
    );
    rig.vm("iptables-nft -t nat -X X");
    let istio = IstioRules {
        interfaces: Vec::new(),
        mark: 1337,
        table: 133,
    };
    take_out(&rig, &istio);
    let after = rig.vm("nft list tables");
    assert_eq!(after.trim(), "table ip raw", "one that drops is not empty");
    rig.vm("nft delete table ip raw");
    assert_eq!(rig.snapshot(), before);
}
