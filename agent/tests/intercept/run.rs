//! The rules follow Envoy.

use std::sync::Arc;
use std::time::Duration;

use istio_vm_agent::config::{Backend, FailPolicy, OnEnvoyDown};
use istio_vm_agent::facts::{EnvoyState, InterceptState};
use istio_vm_agent::intercept;
use istio_vm_agent::supervise::Supervisor;
use tokio::sync::watch;

use super::rig::*;

const READY: EnvoyState = EnvoyState::Ready {
    pid: 1,
    adopted: false,
    restarts: 0,
    successor: None,
};

#[tokio::test(flavor = "multi_thread")]
async fn rules_follow_envoy_and_the_policy() {
    let rig = Rig::new("run");
    let before = rig.snapshot();
    let mut options = rig.options(Backend::Auto);
    options.config.on_envoy_down = OnEnvoyDown {
        inbound: FailPolicy::Closed,
        outbound: FailPolicy::Open,
    };
    let (publish_facts, facts) = watch::channel(Arc::new(membership()));
    let (envoy, states) = watch::channel(EnvoyState::Starting { pid: 1, ended: None });
    let (publish, mut published) = watch::channel(InterceptState::default());
    let mut supervisor = Supervisor::default();
    supervisor.spawn("intercept", Duration::from_secs(10), |scope| {
        intercept::run(scope, options, facts, states, machine(), publish)
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
    let open_after = eventually("outbound opens", limit, || {
        listed().contains("dport 3550") && !listed().contains("jump istio_redirect")
    });
    published
        .wait_for(|state| matches!(state, InterceptState::Open { reason } if reason == "killed"))
        .await
        .unwrap();
    envoy.send_replace(EnvoyState::Starting { pid: 2, ended: None });
    envoy.send_replace(READY);
    let closed_after = eventually("outbound closes", limit, || listed().contains("jump istio_redirect"));
    println!("outbound opened after {open_after:?}, closed after {closed_after:?}");

    let mut grown = membership();
    grown.inbound_ports = Some(vec![3550, 3551]);
    publish_facts.send_replace(Arc::new(grown));
    eventually("another port is redirected", limit, || listed().contains("3551"));

    rig.vm("nft flush ruleset");
    eventually("a flush is repaired", long, || listed().contains("3551"));
    supervisor.drain().await;
    assert_eq!(rig.snapshot(), before);
    assert_eq!(*published.borrow(), InterceptState::Absent);
}

/// A program takes as long as all else between "Envoy is ready" and "the rules are in", and would be started every 5 s.
#[tokio::test(flavor = "multi_thread")]
async fn programs_are_started_to_change_rules_and_not_to_look_at_them() {
    let rig = Rig::new("started");
    rig.feed("iptables-nft-restore --noflush", super::FOREIGN);
    let (_facts, facts) = watch::channel(Arc::new(membership()));
    let (envoy, states) = watch::channel(EnvoyState::Starting { pid: 1, ended: None });
    let (publish, mut published) = watch::channel(InterceptState::default());
    let mut supervisor = Supervisor::default();
    let options = rig.options(Backend::Auto);
    let repairs = options.repairs.clone();
    supervisor.spawn("intercept", Duration::from_secs(10), |scope| {
        intercept::run(scope, options, facts, states, machine(), publish)
    });
    let long = Duration::from_secs(20);
    let mut started = Vec::new();
    eventually("the kernel is asked for what it takes", long, || {
        started.extend(rig.started());
        !started.is_empty()
    });
    assert_eq!(started, ["nft -c -f -"]);
    envoy.send_replace(READY);
    supervisor.newest_ready().await.unwrap();
    assert_eq!(rig.started(), ["nft -f -", "nft -i"]);

    rig.vm("nft delete table inet istio_vm_agent");
    eventually("the rules are put right", long, || repairs.get() == 1);
    let started = rig.started();
    assert_eq!(started, ["nft -f -"]);
    supervisor.drain().await;
    assert_eq!(rig.started(), ["nft -f -"]);
    published
        .wait_for(|state| *state == InterceptState::Absent)
        .await
        .unwrap();
}

/// A neighbour that connects without a pause, while somebody's firewall is flushed again and again.
#[tokio::test(flavor = "multi_thread")]
async fn flush_leaves_no_open_moment() {
    for backend in [Backend::Nftables, Backend::Iptables] {
        let rig = Rig::new("flush");
        for (port, label) in [(3550, "application"), (15006, "inbound")] {
            rig.serve(&rig.vm, "::", port, label);
        }
        let (_facts, facts) = watch::channel(Arc::new(membership()));
        let (_envoy, states) = watch::channel(READY);
        let (publish, mut published) = watch::channel(InterceptState::default());
        let mut supervisor = Supervisor::default();
        let options = rig.options(backend);
        supervisor.spawn("intercept", Duration::from_secs(10), |scope| {
            intercept::run(scope, options, facts, states, machine(), publish)
        });
        // By this the VM is told to be ready, before the part is.
        let is_active = |state: &InterceptState| matches!(state, InterceptState::Active { .. });
        published.wait_for(is_active).await.unwrap();
        for round in 0..10 {
            rig.vm("nft flush ruleset");
            let mut heard = String::new();
            eventually("Envoy answers again", Duration::from_secs(20), || {
                heard = rig.call_within(&rig.peer, Who::Root, VM, 3550, Duration::from_millis(100));
                assert_ne!(heard, "application", "{backend:?}, {round}");
                heard == "inbound"
            });
        }
        supervisor.drain().await;
        assert!(
            !rig.vm("nft list ruleset").contains("istio_vm_agent"),
            "{}",
            rig.vm("nft list ruleset")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_of_a_killed_agent_stay_until_envoy_is_ready() {
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
        |scope| intercept::run(scope, options, facts, states, machine(), publish)
    });
    published
        .wait_for(|state| matches!(state, InterceptState::Active { .. }))
        .await
        .unwrap();
    envoy.send_replace(EnvoyState::Down { reason: "x".into() });
    envoy.send_replace(EnvoyState::Starting { pid: 1, ended: None });
    assert_eq!(rig.vm("nft -s -a list ruleset"), earlier);
    rig.vm("nft flush ruleset");
    eventually("the application is closed again", Duration::from_secs(20), || {
        rig.vm("nft list ruleset").contains("table inet istio_vm_agent {")
    });
    assert!(
        !rig.vm("nft list ruleset").contains("jump istio_redirect"),
        "before Envoy is ready"
    );
    eventually("it is known to the next boot's guard", Duration::from_secs(20), || {
        let options = rig.options(Backend::Nftables);
        intercept::guard_as_before(&options).unwrap().is_some()
    });
    envoy.send_replace(READY);
    supervisor.newest_ready().await.unwrap();
    let now = rig.vm("nft list ruleset");
    assert!(now.contains("istio_vm_agent") && !now.contains("ISTIO_"), "{now}");
    supervisor.drain().await;
}
