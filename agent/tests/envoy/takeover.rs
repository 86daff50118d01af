//! One Envoy takes over from another.

use std::fs;
use std::sync::Arc;

use istio_vm_agent::config::EnvoyConfig;
use istio_vm_agent::facts::{EnvoyState, Membership};
use kit::PATIENCE;
use rustix::process::Signal;

use crate::calls::{call, echo, with_echoes};
use crate::processes::{is_running, kill};
use crate::vm::{Agent, Vm, eventually, membership};

/// A membership that Envoy's bootstrap differs by.
pub(crate) fn moved() -> Arc<Membership> {
    let mut moved = membership();
    moved.instance_ips = vec!["10.200.0.9".parse().unwrap()];
    Arc::new(moved)
}

#[tokio::test]
async fn envoy_of_another_bootstrap_takes_over() {
    let mut vm = Vm::new();
    // Longer than this case waits for anything: only the caller's leaving ends the first one.
    vm.options.config.drain = Some(PATIENCE * 10);
    // It tells in which order it is asked for what.
    vm.options.config.log_level = "debug".to_owned();
    vm.options.config.log_rate = 1_000_000;
    with_echoes(async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        let mut open = call().await;

        vm.membership.send_replace(moved());
        take_over_without_a_gap(&mut agent, first).await;
        let bootstrap = fs::read_to_string(vm.options.paths.bootstrap()).unwrap();
        assert!(bootstrap.contains("10.200.0.9"));

        // What was open goes on, and the old one ends when its callers have gone.
        echo(&mut open).await;
        assert!(is_running(first));
        drop(open);
        eventually("the first Envoy's end", || !is_running(first)).await;
        eventually("one admin socket", || !vm.options.paths.admin_socket_aside().exists()).await;
        drop(call().await);
        // Callers that are told to go come back at once, and must not find the listener that is about to be closed.
        let asked_to_go = format!("{ASKED}?graceful");
        eventually("both requests", || vm.log.text().contains(&asked_to_go)).await;
        let log = vm.log.text();
        let (_, first_request) = log.split_once(ASKED).unwrap();
        assert!(!first_request.starts_with('?'), "{log}");
        agent.drain().await;
        assert_eq!(vm.leftovers(), Vec::<String>::new());
    })
    .await;
}

/// Envoy's words about the request to close its listeners; more follows when it is to have its callers go.
const ASKED: &str = "request complete: path: /drain_listeners";

/// Calls until another Envoy than `first` serves.
async fn take_over_without_a_gap(agent: &mut Agent, first: u32) {
    let taken_over = agent.wait_for(|state| match *state {
        EnvoyState::Ready { pid, .. } => pid != first,
        _ => panic!("no Envoy was ready meanwhile: {state:?}"),
    });
    let calls = async {
        loop {
            drop(call().await);
        }
    };
    tokio::select! {
        biased;
        _ = taken_over => {}
        () = calls => {}
    }
}

#[tokio::test]
async fn agent_that_dies_while_an_envoy_takes_over_leaves_both_to_the_next() {
    let vm = Vm::new();
    with_echoes(async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        // A fact that is none of Envoy's.
        vm.membership
            .send_modify(|membership| Arc::make_mut(membership).roots_pem = "other".to_owned());
        agent.die();
        assert_eq!(vm.running(), Some(first));

        vm.istiod.give_listeners(false);
        vm.membership.send_replace(moved());
        let mut agent = vm.agent();
        assert_eq!(agent.succeeded_in_vain("it lacks listeners").await, first);
        let second = vm.running().unwrap();
        assert_ne!(second, first);
        agent.die();
        assert!(is_running(first) && is_running(second));

        let mut agent = vm.agent();
        assert_eq!(agent.succeeded_in_vain("it lacks listeners").await, first);
        drop(call().await);
        assert_eq!(vm.running(), Some(second));
        vm.istiod.give_listeners(true);
        assert_eq!(agent.ready().await, (second, true, 0));
        eventually("the first Envoy's end", || !is_running(first)).await;
        agent.drain().await;
        assert_eq!(vm.leftovers(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn envoy_that_never_gets_ready_makes_way_for_the_next_and_the_old_one_serves() {
    let vm = Vm::new();
    with_echoes(async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        vm.istiod.give_listeners(false);
        vm.membership.send_replace(moved());
        assert_eq!(agent.succeeded_in_vain("it lacks listeners").await, first);
        let second = vm.running().unwrap();
        kill(second, Signal::KILL);
        assert_eq!(agent.succeeded_in_vain("signal: 9 (SIGKILL)").await, first);
        assert_eq!(agent.succeeded_in_vain("the next one: it lacks listeners").await, first);

        // Nor does an agent that knows nothing of the past take one that is not ready for the one that serves.
        agent.die();
        vm.membership.send_replace(Arc::new(membership()));
        let mut agent = vm.agent();
        assert_eq!(agent.succeeded_in_vain("it lacks listeners").await, first);
        drop(call().await);
        vm.istiod.give_listeners(true);
        let (third, adopted, _) = agent.ready_after(first).await;
        assert!(third != second && !adopted);
        agent.drain().await;
        assert!(!is_running(first));
        assert_eq!(vm.leftovers(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn envoy_that_does_not_start_leaves_the_callers_to_the_old_one() {
    let mut vm = Vm::new();
    let mut agent = vm.agent();
    let (first, ..) = agent.ready().await;
    agent.die();
    vm.options.config.log_level = "no-such-level".to_owned();
    let mut agent = vm.agent();
    assert_eq!(agent.succeeded_in_vain("exit status: 1").await, first);
    eventually("two failed starts", || {
        let failed = vm.log.text().matches("exit status: 1").count();
        failed >= 2 && !vm.options.paths.admin_socket_aside().exists()
    })
    .await;
    assert!(is_running(first));
    agent.die();
    // The next agent finds none but that one, which was never told to go.
    let mut agent = vm.agent();
    assert_eq!(agent.succeeded_in_vain("exit status: 1").await, first);
    agent.die();

    // That one is what is wanted again.
    vm.options.config.log_level = EnvoyConfig::default().log_level;
    let mut agent = vm.agent();
    assert_eq!(agent.ready().await, (first, true, 0));
    agent.drain().await;
    assert!(!is_running(first));
    assert_eq!(vm.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn envoy_whose_program_is_missing_leaves_the_callers_to_the_old_one() {
    let mut vm = Vm::new();
    let mut agent = vm.agent();
    let (first, ..) = agent.ready().await;
    agent.die();
    vm.options.config.binary = Some("/no/such/envoy".into());
    let mut agent = vm.agent();
    assert_eq!(
        agent.succeeded_in_vain("/no/such/envoy: check envoy.binary").await,
        first
    );
    agent.drain().await;
    assert!(!is_running(first));
}
