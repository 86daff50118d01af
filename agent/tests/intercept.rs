//! Interception on the real kernel: namespaces of its own, real sockets, both backends. Needs root, and fails
//! without it.
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test that makes namespaces, and prints what it measures"
)]

#[path = "intercept/docker.rs"]
mod docker;
#[path = "intercept/istio.rs"]
mod istio;
#[path = "intercept/rig.rs"]
mod rig;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use istio_vm_agent::config::{Backend, FailPolicy, OnEnvoyDown};
use istio_vm_agent::facts::{EnvoyState, InterceptState};
use istio_vm_agent::host::change::{apply_all, revert_all};
use istio_vm_agent::intercept;
use istio_vm_agent::supervise::Supervisor;

use rig::*;

/// Servers of a VM in the mesh, and of the world around it.
fn servers(rig: &Rig) {
    for (port, label) in [
        (3550, "application"),
        (8080, "other"),
        (22, "ssh"),
        (15001, "outbound"),
        (15006, "inbound"),
    ] {
        // Both families.
        rig.serve(&rig.vm, "::", port, label);
    }
    rig.serve(&rig.vm, "127.0.0.1", 15053, "agent's DNS");
    rig.serve_udp(&rig.vm, "127.0.0.1", 15053, "agent's DNS");
    rig.serve(&rig.peer, "::", 80, "far");
    rig.serve(&rig.peer, RESOLVER, 53, "resolver");
    rig.serve_udp(&rig.peer, RESOLVER, 53, "resolver");
}

/// Every promise about who gets which packet.
fn redirects(rig: &Rig) {
    let Rig { vm, peer, .. } = rig;
    for (from, ip) in [(peer, VM), (peer, VM6)] {
        assert_eq!(rig.call(from, Who::Root, ip, 3550), "inbound", "{ip}");
        assert_eq!(rig.call(from, Who::Root, ip, 8080), "other", "{ip}");
        assert_eq!(rig.call(from, Who::Root, ip, 22), "ssh", "{ip}");
    }
    for ip in [FAR, FAR6] {
        assert_eq!(rig.call(vm, Who::Root, ip, 80), "outbound", "{ip}");
        assert_eq!(rig.call(vm, Who::Agent, ip, 80), "far", "{ip}");
        assert_eq!(rig.call(vm, Who::Envoy, ip, 80), "far", "{ip}");
    }
    assert_eq!(rig.call(vm, Who::Root, METADATA, 80), "far");
    for ip in ["127.0.0.1", "::1", VM, VM6] {
        assert_eq!(rig.call(vm, Who::Root, ip, 8080), "other", "{ip}");
        assert_eq!(rig.call(vm, Who::Agent, ip, 3550), "application", "{ip}");
    }
    // Envoy calling its own application by the VM's address is a call like any other.
    assert_eq!(rig.call(vm, Who::Envoy, VM, 3550), "inbound");
    assert_eq!(rig.call(vm, Who::Root, RESOLVER, 53), "agent's DNS");
    assert_eq!(rig.call(vm, Who::Agent, RESOLVER, 53), "resolver");
    // The agent asks from the very port that an application asked from: not one connection to conntrack.
    assert_eq!(rig.ask(vm, Who::Root, RESOLVER, 53, 20053), "agent's DNS");
    assert_eq!(rig.ask(vm, Who::Agent, RESOLVER, 53, 20053), "resolver");
    assert_eq!(rig.ask(vm, Who::Envoy, RESOLVER, 53, 20053), "resolver");
}

fn redirects_by(backend: Backend, test: &str) {
    let rig = Rig::new(test);
    servers(&rig);
    assert_eq!(rig.call(&rig.peer, Who::Root, VM, 3550), "application");
    let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
    apply_all(&rig.host, &[change]).unwrap();
    redirects(&rig);

    // A mesh of IPv4 alone gives Envoy nothing that listens on IPv6: calls to others go out as they are, and calls
    // to the application never pass Envoy by.
    let mut single = membership();
    single.env.remove("ISTIO_DUAL_STACK");
    let change = intercept::change(&single, &rig.options(backend)).unwrap();
    apply_all(&rig.host, &[change]).unwrap();
    assert_eq!(rig.call(&rig.vm, Who::Root, FAR6, 80), "far");
    assert_eq!(rig.call(&rig.vm, Who::Root, FAR, 80), "outbound");
    assert_eq!(rig.call(&rig.peer, Who::Root, VM6, 3550), "inbound");
    let change = intercept::change(&single, &rig.options(backend)).unwrap();
    assert_eq!(
        change.plan(&rig.host).unwrap(),
        None,
        "it is as wanted, and plan shows a change"
    );
}

#[test]
fn nftables_redirects() {
    redirects_by(Backend::Nftables, "nft");
}

#[test]
fn iptables_redirects() {
    redirects_by(Backend::Iptables, "ipt");
}

/// What Docker and an operator may have put there first.
const FOREIGN: &str = "*nat
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
-A DOCKER -p tcp -m tcp --dport 3550 -j REDIRECT --to-ports 8080
COMMIT
*filter
-A INPUT -s 198.51.100.0/24 -j DROP
COMMIT
";

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
    assert!(!intercept::present(&rig.host));
    assert_eq!(rig.snapshot(), before, "planning changed the host");

    let start = Instant::now();
    change.apply(&rig.host).unwrap();
    let applied = start.elapsed();
    let start = Instant::now();
    assert!(intercept::present(&rig.host));
    let found = start.elapsed();
    assert_eq!(change.plan(&rig.host).unwrap(), None);
    let after = rig.vm("nft -s -a list ruleset");
    apply_all(&rig.host, std::slice::from_ref(&change)).unwrap();
    assert_eq!(rig.vm("nft -s -a list ruleset"), after, "a second apply did something");
    change.apply(&rig.host).unwrap();
    assert_eq!(change.plan(&rig.host).unwrap(), None);

    // Gone without a word: the next knows only the marks.
    drop(change);
    let start = Instant::now();
    revert_all(&rig.host, &intercept::marks()).unwrap();
    println!(
        "{backend:?}: applied in {applied:?}, found in {found:?}, removed in {:?}",
        start.elapsed()
    );
    assert_eq!(rig.snapshot(), before);
    assert!(!intercept::present(&rig.host));
    revert_all(&rig.host, &intercept::marks()).unwrap();
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
fn docker_s_rules_come_second_whoever_was_first() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("order");
        servers(&rig);
        let change = intercept::change(&membership(), &rig.options(backend)).unwrap();
        rig.feed("iptables-nft-restore --noflush", FOREIGN);
        assert_eq!(rig.call(&rig.peer, Who::Root, VM, 3550), "other");
        change.apply(&rig.host).unwrap();
        assert_eq!(
            rig.call(&rig.peer, Who::Root, VM, 3550),
            "inbound",
            "{backend:?}, Docker first"
        );
        change.revert(&rig.host).unwrap();
        rig.vm("iptables-nft -t nat -F");
        rig.vm("iptables-nft -t nat -X");
        change.apply(&rig.host).unwrap();
        rig.feed("iptables-nft-restore --noflush", FOREIGN);
        assert_eq!(
            rig.call(&rig.peer, Who::Root, VM, 3550),
            "inbound",
            "{backend:?}, ours first"
        );
    }
}

#[test]
fn a_switch_of_backend_leaves_nothing_of_the_other() {
    let rig = Rig::new("switch");
    servers(&rig);
    let before = rig.snapshot();
    let change = |backend| intercept::change(&membership(), &rig.options(backend)).unwrap();
    apply_all(&rig.host, &[change(Backend::Iptables)]).unwrap();
    apply_all(&rig.host, &[change(Backend::Nftables)]).unwrap();
    assert!(!rig.snapshot().contains("ISTIO_"), "{}", rig.snapshot());
    redirects(&rig);
    apply_all(&rig.host, &[change(Backend::Iptables)]).unwrap();
    assert!(!rig.snapshot().contains("istio_vm_agent"), "{}", rig.snapshot());
    redirects(&rig);
    revert_all(&rig.host, &intercept::marks()).unwrap();
    assert_eq!(rig.snapshot(), before);
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
        revert_all(&rig.host, &intercept::marks()).unwrap();
        assert_eq!(rig.snapshot(), before);
    }
}

/// A connection that is older than conntrack in this namespace, and on which this VM speaks first.
#[test]
fn an_open_connection_goes_on() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("open");
        rig.serve(&rig.vm, "::", 15001, "outbound");
        let listener = rig.at(&rig.vm, Who::Root, || TcpListener::bind(address(VM, 22)).unwrap());
        let mut client = rig.at(&rig.peer, Who::Root, || TcpStream::connect(address(VM, 22)).unwrap());
        let mut server = listener.accept().unwrap().0;
        intercept::change(&membership(), &rig.options(backend))
            .unwrap()
            .apply(&rig.host)
            .unwrap();
        for round in 0..3 {
            let mut buffer = [0; 1];
            client.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            server.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            server.write_all(b"s").unwrap();
            client
                .read_exact(&mut buffer)
                .unwrap_or_else(|error| panic!("{backend:?} {round}: {error}"));
            client.write_all(b"c").unwrap();
            server
                .read_exact(&mut buffer)
                .unwrap_or_else(|error| panic!("{backend:?} {round}: {error}"));
        }
    }
}

#[test]
fn a_bad_setting_and_a_missing_program_are_told() {
    let rig = Rig::new("told");
    let mut bad = membership();
    bad.env.insert("ISTIO_SERVICE_CIDR".into(), "10.0.0.0/8,tenth".into());
    let error = intercept::change(&bad, &rig.options(Backend::Nftables)).unwrap_err();
    assert_eq!(
        format!("{error:#}"),
        "cluster.env: ISTIO_SERVICE_CIDR = \"10.0.0.0/8,tenth\": \"tenth\" can't be used"
    );
}

const READY: EnvoyState = EnvoyState::Ready {
    pid: 1,
    adopted: false,
    restarts: 0,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_rules_follow_envoy_and_the_policy() {
    use std::sync::Arc;
    use tokio::sync::watch;

    let rig = Rig::new("run");
    let before = rig.snapshot();
    let mut options = rig.options(Backend::Auto);
    options.config.on_envoy_down = OnEnvoyDown {
        inbound: FailPolicy::Closed,
        outbound: FailPolicy::Open,
    };
    let (_facts, facts) = watch::channel(Arc::new(membership()));
    let (envoy, states) = watch::channel(EnvoyState::Starting { pid: 1 });
    let (publish, mut published) = watch::channel(InterceptState::default());
    let mut supervisor = Supervisor::default();
    supervisor.spawn("intercept", Duration::from_secs(10), |scope| {
        intercept::run(scope, options, facts, states, publish)
    });
    let (limit, long) = (Duration::from_secs(10), Duration::from_secs(20));
    let listed = || rig.vm("nft list ruleset");
    assert_eq!(rig.snapshot(), before, "rules before Envoy is ready");
    envoy.send_replace(READY);
    supervisor.newest_ready().await.unwrap();
    assert!(
        listed().contains("15001") && listed().contains("dport 3550"),
        "{}",
        listed()
    );
    assert!(matches!(&*published.borrow(), InterceptState::Active { backend, .. } if backend == "nftables"));

    envoy.send_replace(EnvoyState::Down {
        reason: "killed".into(),
    });
    let open = || listed().contains("dport 3550") && !listed().contains("jump istio_output ");
    let open_after = eventually("outbound opens", limit, || {
        !listed().contains("chain istio_output ") && open()
    });
    published
        .wait_for(|state| matches!(state, InterceptState::Open { reason } if reason == "killed"))
        .await
        .unwrap();
    envoy.send_replace(EnvoyState::Starting { pid: 2 });
    envoy.send_replace(READY);
    let closed_after = eventually("outbound closes", limit, || listed().contains("chain istio_output "));
    println!("outbound opened after {open_after:?}, closed after {closed_after:?}");

    rig.vm("nft flush ruleset");
    eventually("a flush is repaired", long, || listed().contains("dport 3550"));
    supervisor.drain().await;
    assert_eq!(rig.snapshot(), before);
    assert_eq!(*published.borrow(), InterceptState::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_killed_agent_stay_until_envoy_is_ready() {
    use std::sync::Arc;
    use tokio::sync::watch;

    let rig = Rig::new("adopt");
    intercept::change(&membership(), &rig.options(Backend::Iptables))
        .unwrap()
        .apply(&rig.host)
        .unwrap();
    let earlier = rig.vm("nft -s -a list ruleset");
    let (_facts, facts) = watch::channel(Arc::new(membership()));
    let (envoy, states) = watch::channel(EnvoyState::Waiting);
    let (publish, mut published) = watch::channel(InterceptState::default());
    let mut supervisor = Supervisor::default();
    supervisor.spawn("intercept", Duration::from_secs(10), {
        let options = rig.options(Backend::Nftables);
        |scope| intercept::run(scope, options, facts, states, publish)
    });
    published
        .wait_for(|state| matches!(state, InterceptState::Active { .. }))
        .await
        .unwrap();
    envoy.send_replace(EnvoyState::Down { reason: "x".into() });
    envoy.send_replace(EnvoyState::Starting { pid: 1 });
    assert_eq!(rig.vm("nft -s -a list ruleset"), earlier);
    envoy.send_replace(READY);
    supervisor.newest_ready().await.unwrap();
    let now = rig.vm("nft list ruleset");
    assert!(now.contains("istio_vm_agent") && !now.contains("ISTIO_"), "{now}");
    supervisor.drain().await;
}
