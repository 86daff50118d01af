//! Firewalls of others that let the application's port in and no other: what `check` says to do, done to the letter, lets
//! calls of the mesh in, and then `check` has nothing to say.

use std::time::Duration;

use istio_vm_agent::config::Backend;
use istio_vm_agent::intercept::{self, InterceptPart};
use istio_vm_agent::part::Level;

use super::installed::{Installed, START};
use super::rig::*;

/// Time after which a call is taken for dropped.
const DROPPED: Duration = Duration::from_secs(1);
const NFT: &str = "table inet filter {
chain input {
type filter hook input priority 0; policy drop;
iifname lo accept
ct state established,related accept
meta l4proto { icmp, ipv6-icmp } accept
tcp dport { 22, 3550 } accept
}
}
";

/// A VM that serves, and whose firewall keeps its files to itself.
fn vm(test: &str, files: &str) -> Installed {
    let vm = Installed::new(test, files);
    let rig = &vm.rig;
    rig.serve(&rig.vm, "0.0.0.0", 3550, "application");
    for (port, label) in [(15006, "envoy"), (15021, "readiness")] {
        rig.serve_as(&rig.vm, Who::Envoy, "0.0.0.0", port, label);
    }
    vm
}

fn redirect(vm: &Installed) {
    let change = intercept::change(&membership(), &vm.rig.options(Backend::Nftables)).unwrap();
    change.apply(&vm.rig.host).unwrap();
}

fn call(vm: &Installed, port: u16) -> String {
    vm.rig.call_within(&vm.rig.peer, Who::Root, VM, port, DROPPED)
}

/// What `check` says to do; done, it lets calls of the mesh and probes in.
fn expect_the_fix_helps(vm: &Installed) -> String {
    let rig = &vm.rig;
    // In the namespace itself: which legacy tables there are is read from /proc.
    let found = || rig.at(&rig.vm, Who::Root, || finding(&InterceptPart, "firewall", &rig.host));
    let before = found();
    assert_eq!(before.level, Level::Warning, "{before:?}");
    assert_ne!(call(vm, 15021), "readiness");
    let fix = before.fix.unwrap();
    vm.shell(&fix).unwrap();
    let answers = (call(vm, 3550), call(vm, 15021));
    assert_eq!(
        (answers.0.as_str(), answers.1.as_str()),
        ("envoy", "readiness"),
        "{fix}"
    );
    let after = found();
    assert_eq!(after.level, Level::Ok, "after {fix}: {after:?}");
    fix
}

#[test]
fn nftables_that_drops_what_it_does_not_know_is_opened_by_the_fix() {
    let vm = vm("fw-nft", "/etc/ufw");
    vm.rig.feed("nft -f -", NFT);
    assert_eq!(call(&vm, 3550), "application");
    redirect(&vm);
    assert_ne!(call(&vm, 3550), "envoy");
    expect_the_fix_helps(&vm);
}

#[test]
fn legacy_iptables_is_opened_by_the_fix() {
    let vm = vm("fw-legacy", "/etc/ufw");
    let rules = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n\
                 -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
                 -A INPUT -p tcp -m multiport --dports 22,3550 -j ACCEPT\nCOMMIT\n";
    vm.rig.feed("iptables-legacy-restore", rules);
    assert_eq!(call(&vm, 3550), "application");
    redirect(&vm);
    assert_ne!(call(&vm, 3550), "envoy");
    let fix = expect_the_fix_helps(&vm);
    assert!(fix.starts_with("iptables-legacy -I INPUT "), "{fix}");
}

#[test]
fn ufw_is_opened_by_the_fix() {
    let vm = vm("fw-ufw", "/etc/ufw");
    vm.shell("ufw allow 22,3550/tcp && ufw --force enable").unwrap();
    assert_eq!(call(&vm, 3550), "application");
    redirect(&vm);
    assert_ne!(call(&vm, 3550), "envoy");
    let fix = expect_the_fix_helps(&vm);
    assert!(fix.starts_with("ufw allow "), "{fix}");
}

/// It lets in what was redirected, whatever the port; but not what is Envoy's own.
#[test]
fn firewalld_is_opened_by_the_fix() {
    let mut vm = vm("fw-firewalld", "/etc/firewalld");
    vm.shell("mkdir -p /run/dbus").unwrap();
    vm.start("dbus-daemon --system --nofork --nopidfile");
    eventually("the bus", START, || {
        vm.shell("test -S /run/dbus/system_bus_socket").is_ok()
    });
    vm.start("firewalld --nofork --nopid");
    eventually("firewalld", START, || vm.shell("firewall-cmd --state").is_ok());
    vm.shell("firewall-cmd --permanent --add-port=22/tcp --add-port=3550/tcp && firewall-cmd --reload")
        .unwrap();
    assert_eq!(call(&vm, 3550), "application");
    redirect(&vm);
    assert_eq!(call(&vm, 3550), "envoy");
    let fix = expect_the_fix_helps(&vm);
    assert!(
        fix.starts_with("firewall-cmd --permanent --add-port=15021/tcp"),
        "{fix}"
    );
}
