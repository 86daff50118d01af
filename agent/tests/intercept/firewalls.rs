//! Firewalls of others that let the application's port in and no other, or out what its programs call and nothing else: what
//! `check` says to do, done to the letter, lets calls of the mesh pass, and then `check` has nothing to say.

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

const NFT_OUT: &str = "table inet filter {
chain output {
type filter hook output priority 0; policy drop;
oif lo accept
ct state established,related accept
meta l4proto ipv6-icmp accept
tcp dport { 53, 80 } accept
udp dport 53 accept
}
}
";
/// Of both directions.
const IPTABLES: &str = "*filter
:INPUT DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -p tcp -m multiport --dports 22,3550 -j ACCEPT
-A OUTPUT -o lo -j ACCEPT
-A OUTPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A OUTPUT -p tcp -m multiport --dports 53,80 -j ACCEPT
-A OUTPUT -p udp -m udp --dport 53 -j ACCEPT
COMMIT
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

/// Follows the fix of `check`, which then lets calls of the mesh and probes in.
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

/// Has the VM call a server outside.
fn serve_what_is_called(vm: &Installed) {
    let rig = &vm.rig;
    rig.serve_dns_and_far();
    rig.serve_as(&rig.vm, Who::Envoy, "127.0.0.1", 15001, "envoy, outbound");
}

fn call_out(vm: &Installed) -> String {
    vm.rig.call_within(&vm.rig.vm, Who::Nobody, FAR, 80, DROPPED)
}

/// Before the redirection the VM's programs reach what they call, with it they don't, and do after what `check` says to do.
fn expect_the_fix_lets_out(vm: &Installed, fixed: impl FnOnce() -> String) -> String {
    assert_eq!(call_out(vm), "far");
    redirect(vm);
    assert_ne!(call_out(vm), "envoy, outbound");
    let fix = fixed();
    assert_eq!(call_out(vm), "envoy, outbound", "{fix}");
    let rig = &vm.rig;
    assert_eq!(rig.ask(&rig.vm, Who::Nobody, RESOLVER, 53, 0), "agent's DNS", "{fix}");
    fix
}

fn fix_and_look_again(vm: &Installed) -> String {
    let rig = &vm.rig;
    let found = || rig.at(&rig.vm, Who::Root, || finding(&InterceptPart, "firewall", &rig.host));
    let fix = found().fix.unwrap();
    vm.shell(&fix).unwrap();
    let after = found();
    assert_eq!(after.level, Level::Ok, "after {fix}: {after:?}");
    fix
}

#[test]
fn nftables_that_lets_programs_call_some_ports_alone_is_opened_by_the_fix() {
    let vm = vm("fw-nft-out", "/etc/ufw");
    serve_what_is_called(&vm);
    vm.rig.feed("nft -f -", NFT_OUT);
    let fix = expect_the_fix_lets_out(&vm, || fix_and_look_again(&vm));
    let rule = "nft insert rule inet filter output";
    let [of_programs, of_envoy, of_agent] = ["fib daddr type local", "meta skuid 1337", "tcp dport { 15012 }"]
        .map(|matches| format!("{rule} {matches} accept"));
    assert_eq!(fix, format!("{of_programs} && {of_envoy} && {of_agent}"));
    // Pods have whatever ports.
    vm.rig.serve(&vm.rig.peer, "::", 7070, "pod");
    assert_eq!(vm.rig.call_within(&vm.rig.vm, Who::Envoy, FAR, 7070, DROPPED), "pod");
}

#[test]
fn iptables_over_nftables_is_opened_both_ways_by_its_own_fix() {
    let vm = vm("fw-iptables-nft", "/etc/ufw");
    serve_what_is_called(&vm);
    vm.rig.feed("iptables-nft-restore", IPTABLES);
    let fix = expect_the_fix_lets_out(&vm, || expect_the_fix_helps(&vm));
    assert!(!fix.contains("nft insert"), "{fix}");
}

#[test]
fn ufw_that_lets_programs_call_some_ports_alone_is_opened_by_the_fix() {
    let vm = vm("fw-ufw-out", "/etc/ufw");
    serve_what_is_called(&vm);
    vm.shell(
        "ufw default deny outgoing && ufw allow 22,3550,15006,15021,15090/tcp && ufw allow out 80/tcp && \
         ufw allow out 53 && ufw --force enable",
    )
    .unwrap();
    let fix = expect_the_fix_lets_out(&vm, || fix_and_look_again(&vm));
    assert!(
        fix.starts_with("ufw allow out to 127.0.0.0/8 && ufw allow out to ::1 && sed "),
        "{fix}"
    );
    assert!(fix.ends_with("&& ufw allow out 15012/tcp"), "{fix}");
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

/// Calls of the mesh come by eth0, those of containers by their bridge.
const NFT_BY_INTERFACE: &str = "table inet filter {
chain input {
type filter hook input priority 0; policy drop;
iifname { lo, eth0 } accept
ct state established,related accept
meta l4proto { icmp, ipv6-icmp } accept
}
}
";
const BRIDGE: &str = "172.30.9.1";

/// A namespace on a bridge of the VM's, as a container is.
struct Container {
    ns: String,
}

impl Container {
    fn on(bridge: &str, rig: &Rig) -> Self {
        let (vm, ns) = (&rig.vm, format!("{}-pod", rig.vm));
        command(&format!("ip netns add {ns}"));
        let container = Self { ns };
        let ns = &container.ns;
        command(&format!("ip -n {vm} link add {bridge} type bridge"));
        command(&format!("ip -n {vm} addr add {BRIDGE}/24 dev {bridge}"));
        command(&format!(
            "ip link add veth0 netns {vm} type veth peer name eth0 netns {ns}"
        ));
        command(&format!("ip -n {vm} link set veth0 master {bridge} up"));
        command(&format!("ip -n {vm} link set {bridge} up"));
        command(&format!("ip -n {ns} addr add 172.30.9.2/24 dev eth0"));
        command(&format!("ip -n {ns} link set eth0 up"));
        command(&format!("ip -n {ns} route add default via {BRIDGE}"));
        container
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = std::process::Command::new("ip")
            .args(["netns", "del", &self.ns])
            .status();
    }
}

#[test]
fn nftables_that_lets_in_by_another_interface_alone_is_opened_to_containers_by_the_fix() {
    let vm = vm("fw-bridge", "/etc/ufw");
    let rig = &vm.rig;
    let container = Container::on("shop0", rig);
    rig.serve_as(&rig.vm, Who::Envoy, BRIDGE, 15001, "envoy, outbound");
    rig.serve(&rig.vm, BRIDGE, 15053, "agent's DNS");
    rig.serve_udp(&rig.vm, BRIDGE, 15053, "agent's DNS");
    redirect(&vm);
    let call = |ip: &str, port: u16| rig.call_within(&container.ns, Who::Root, ip, port, DROPPED);
    assert_eq!(call(FAR, 80), "envoy, outbound");
    rig.feed("nft -f -", NFT_BY_INTERFACE);
    assert_ne!(call(FAR, 80), "envoy, outbound");
    assert_ne!(call(RESOLVER, 53), "agent's DNS");
    let fix = fix_and_look_again(&vm);
    let rule = "nft insert rule inet filter input iifname shop0";
    assert_eq!(
        fix,
        format!("{rule} tcp dport {{ 15001, 15053 }} accept && {rule} udp dport {{ 15053 }} accept")
    );
    assert_eq!(
        (call(FAR, 80).as_str(), call(RESOLVER, 53).as_str()),
        ("envoy, outbound", "agent's DNS")
    );
    assert_eq!(rig.ask(&container.ns, Who::Root, RESOLVER, 53, 0), "agent's DNS");
}

/// Who may call the application may call the mesh: a network that is let in whatever it calls is no door that is shut.
#[test]
fn nftables_that_lets_in_one_network_alone_shuts_nobody_out_whom_the_application_had() {
    let vm = vm("fw-saddr", "/etc/ufw");
    let open_to_peers = NFT.replace("tcp dport { 22, 3550 }", &format!("ip saddr {PEER}/24"));
    vm.rig.feed("nft -f -", &open_to_peers);
    redirect(&vm);
    assert_eq!(call(&vm, 3550), "envoy");
    let rig = &vm.rig;
    let found = || rig.at(&rig.vm, Who::Root, || finding(&InterceptPart, "firewall", &rig.host));
    assert_eq!(found().level, Level::Ok, "{:?}", found());
    // Now others may call the application, and not Envoy.
    vm.shell("nft add rule inet filter input tcp dport 3550 accept")
        .unwrap();
    let shut = found();
    assert!(
        shut.detail.contains("15006, 15021, 15090, but from 10.9.0.0/24"),
        "{shut:?}"
    );
}

/// The fix beats a rule that lets in all but redirected calls.
#[test]
fn rule_that_drops_what_is_redirected_is_overruled_by_the_fix() {
    for (test, program, rules) in [
        (
            "fw-drop-nft",
            "nft -f -",
            "table inet f {\nchain in {\ntype filter hook input priority 0;\ntcp dport { 15006, 15021 } drop\n}\n}\n",
        ),
        (
            "fw-drop-ipt",
            "iptables-nft-restore",
            "*filter\n-A INPUT -p tcp -m multiport --dports 15006,15021 -j REJECT\nCOMMIT\n",
        ),
    ] {
        let vm = vm(test, "/etc/ufw");
        vm.rig.feed(program, rules);
        assert_eq!(call(&vm, 3550), "application");
        redirect(&vm);
        assert_ne!(call(&vm, 3550), "envoy");
        expect_the_fix_helps(&vm);
    }
}

#[test]
fn rules_that_drop_on_lo_are_overruled_by_the_fix() {
    let vm = vm("fw-lo", "/etc/ufw");
    serve_what_is_called(&vm);
    let of = |hook: &str, interface: &str| {
        format!("chain {hook} {{\ntype filter hook {hook} priority 0;\n{interface} lo drop\n}}\n")
    };
    let rules = format!("table inet f {{\n{}{}}}\n", of("input", "iif"), of("output", "oif"));
    vm.rig.feed("nft -f -", &rules);
    let fix = expect_the_fix_lets_out(&vm, || fix_and_look_again(&vm));
    assert_eq!(
        fix,
        "nft insert rule inet f input iif lo accept && nft insert rule inet f output oif lo accept"
    );
}

/// Rules that are asked first, and take what is captured.
fn expect_the_way_is_free_after_the_fix(test: &str, program: &str, rules: &str, name: &str) {
    let vm = vm(test, "/etc/ufw");
    vm.rig.serve(&vm.rig.vm, "0.0.0.0", 8080, "another");
    redirect(&vm);
    let rig = &vm.rig;
    let found = || rig.at(&rig.vm, Who::Root, || finding(&InterceptPart, name, &rig.host));
    assert_eq!((found().level, call(&vm, 3550).as_str()), (Level::Ok, "envoy"));
    rig.feed(program, rules);
    assert_ne!(call(&vm, 3550), "envoy");
    let before = found();
    assert_eq!(before.level, Level::Warning, "{before:?}");
    vm.shell(&before.fix.unwrap()).unwrap();
    assert_eq!((found().level, call(&vm, 3550).as_str()), (Level::Ok, "envoy"));
}

#[test]
fn nat_of_another_program_before_ours_is_taken_out_by_the_fix() {
    let rules = "table inet n {\nchain pre {\ntype nat hook prerouting priority -110;\n\
                 tcp dport { 22, 3550 } redirect to :8080\ntcp dport 99 redirect to :8080\n}\n}\n";
    expect_the_way_is_free_after_the_fix("ahead-nat", "nft -f -", rules, "other NAT");
}

/// Envoy's own call, by its user.
fn call_of_envoy(vm: &Installed) -> String {
    vm.rig.call_within(&vm.rig.vm, Who::Envoy, FAR, 80, DROPPED)
}

#[test]
fn rules_that_keep_envoy_from_what_it_calls_are_overruled_by_the_fix() {
    let users = "meta skuid { 0, 65534 } accept\n";
    let nft = NFT_OUT.replace("tcp dport { 53, 80 } accept\n", "fib daddr type local accept\n");
    let nft = nft.replace("oif lo accept\n", &format!("oif lo accept\n{users}"));
    let ipt = "*filter\n:OUTPUT DROP [0:0]\n-A OUTPUT -o lo -j ACCEPT\n-A OUTPUT -d 127.0.0.0/8 -j ACCEPT\n\
               -A OUTPUT -m owner --uid-owner 0-1000 -j ACCEPT\nCOMMIT\n";
    let nat = "*nat\n-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 9999\nCOMMIT\n";
    for (test, program, rules, name) in [
        ("envoy-nft", "nft -f -", nft.as_str(), "firewall"),
        ("envoy-ipt", "iptables-nft-restore", ipt, "firewall"),
        ("envoy-leg", "iptables-legacy-restore", ipt, "firewall"),
        ("envoy-nat", "iptables-nft-restore", nat, "other NAT"),
    ] {
        let vm = vm(test, "/etc/ufw");
        serve_what_is_called(&vm);
        redirect(&vm);
        let rig = &vm.rig;
        let found = || rig.at(&rig.vm, Who::Root, || finding(&InterceptPart, name, &rig.host));
        assert_eq!(
            (found().level, call_of_envoy(&vm).as_str()),
            (Level::Ok, "far"),
            "{test}"
        );
        rig.feed(program, rules);
        assert_ne!(call_of_envoy(&vm), "far", "{test}");
        let before = found();
        assert_eq!(before.level, Level::Warning, "{test}: {before:?}");
        vm.shell(&before.fix.unwrap()).unwrap();
        assert_eq!(
            (found().level, call_of_envoy(&vm).as_str()),
            (Level::Ok, "far"),
            "{test}"
        );
    }
}

#[test]
fn rule_that_keeps_the_application_from_conntrack_is_taken_out_by_the_fix() {
    let nft = "table ip t {\nchain pre {\ntype filter hook prerouting priority raw;\n\
               tcp dport 3000-4000 notrack\nudp dport 53 notrack\n}\n}\n";
    let raw = "*raw\n-A PREROUTING -p tcp -m multiport --dports 80,3550 -j CT --notrack\n\
               -A PREROUTING -p tcp -m tcp --dport 99 -j CT --notrack\n-A PREROUTING -i lo -j CT --notrack\nCOMMIT\n";
    let (nft_zone, raw_zone) = (
        nft.replace("notrack", "ct zone set 5"),
        raw.replace("--notrack", "--zone 5"),
    );
    for (test, program, rules) in [
        ("ahead-nft", "nft -f -", nft),
        ("ahead-ipt", "iptables-nft-restore", raw),
        ("ahead-leg", "iptables-legacy-restore", raw),
        ("ahead-zone", "nft -f -", &nft_zone),
        ("ahead-ctz", "iptables-nft-restore", &raw_zone),
    ] {
        expect_the_way_is_free_after_the_fix(test, program, rules, "untracked");
    }
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
    vm.shell("ufw reload").unwrap();
    assert_eq!(call(&vm, 3550), "envoy", "after a reload");
}

/// The fix lets in redirected calls, whatever the port; but none to Envoy's own ports.
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
    for reload in ["firewall-cmd --reload", "firewall-cmd --complete-reload"] {
        vm.shell(reload).unwrap();
        assert_eq!(call(&vm, 3550), "envoy", "after {reload}");
    }
}

/// `status` says so as long as an agent runs, and so beside these.
#[test]
fn rules_of_the_mesh_are_no_firewall_of_others() {
    let rig = Rig::new("fw-own");
    for backend in [Backend::Nftables, Backend::Iptables] {
        let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
        change.apply(&rig.host).unwrap();
        let found = rig.at(&rig.vm, Who::Root, || finding(&InterceptPart, "firewall", &rig.host));
        assert_eq!(found.level, Level::Ok, "{backend:?}: {found:?}");
        change.revert(&rig.host).unwrap();
    }
}
