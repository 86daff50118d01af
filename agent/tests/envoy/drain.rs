//! A stop, for the callers.

use istio_vm_agent::facts::EnvoyState;
use kit::PATIENCE;

use crate::calls::{call, echo, with_echoes};
use crate::processes::is_running;
use crate::takeover::moved;
use crate::vm::{Agent, Vm, eventually};

/// A VM with a longer drain than any case waits for: only the callers' leaving can end it.
fn patient() -> Vm {
    let mut vm = Vm::new();
    vm.options.config.drain = Some(PATIENCE * 10);
    vm
}

/// Drains, and has the last caller leave only once the drain has looked at these a second time.
async fn drains(vm: &Vm, agent: Agent, pids: &[u32], leave: impl AsyncFnOnce()) {
    let mut state = agent.state.clone();
    let drained = agent.drain();
    let looked = async {
        state
            .wait_for(|state| matches!(state, EnvoyState::Draining { .. }))
            .await
            .unwrap();
        for pid in pids {
            let look = format!("still draining Envoy pid={pid} ");
            eventually("a second look", || vm.log.text().matches(&look).count() > 1).await;
        }
    };
    tokio::pin!(drained);
    tokio::select! {
        () = &mut drained => panic!("did not wait"),
        () = looked => {}
    }
    leave().await;
    drained.await;
    for pid in pids {
        assert!(!is_running(*pid));
    }
}

#[tokio::test]
async fn drain_waits_for_the_callers() {
    let vm = patient();
    with_echoes(async {
        let mut agent = vm.agent();
        let (pid, ..) = agent.ready().await;
        let caller = call().await;
        drains(&vm, agent, &[pid], async || {
            // Whatever is asked for now, no further Envoy is to live.
            let looks = || vm.log.text().matches("still draining").count();
            let so_far = looks();
            vm.membership.send_replace(moved());
            eventually("further looks", || looks() > so_far + 3).await;
            assert_eq!(vm.running(), Some(pid));
            drop(caller);
        })
        .await;
        assert!(vm.log.text().contains("no connection is left"), "{}", vm.log.text());
        assert_eq!(vm.running(), None);
    })
    .await;
}

#[tokio::test]
async fn envoy_that_was_drained_is_replaced_by_the_next_agent() {
    let vm = patient();
    with_echoes(async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        let mut caller = call().await;
        // Killed in the middle of it.
        tokio::select! {
            () = agent.drain() => panic!("did not wait"),
            () = eventually("the drain", || vm.log.text().contains("still draining")) => {}
        }
        let mut agent = vm.agent();
        let (_, adopted, _) = agent.ready_after(first).await;
        assert!(!adopted);
        echo(&mut caller).await;
        echo(&mut call().await).await;
        drop(caller);
        agent.drain().await;
        assert!(!is_running(first));
    })
    .await;
}

#[tokio::test]
async fn drain_while_an_envoy_takes_over_waits_for_the_callers_of_the_old_one() {
    let vm = patient();
    with_echoes(async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        let mut caller = call().await;
        vm.istiod.give_listeners(false);
        vm.membership.send_replace(moved());
        assert_eq!(agent.succeeded_in_vain("it lacks listeners").await, first);
        drains(&vm, agent, &[first], async move || echo(&mut caller).await).await;
        assert_eq!(vm.running(), None);
        assert_eq!(vm.leftovers(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test]
async fn drain_after_an_envoy_took_over_waits_for_the_callers_of_both() {
    let vm = patient();
    with_echoes(async {
        let mut agent = vm.agent();
        let (first, ..) = agent.ready().await;
        let mut of_first = call().await;
        vm.membership.send_replace(moved());
        let (second, ..) = agent.ready_after(first).await;
        eventually("the first Envoy's drain", || vm.log.text().contains("draining Envoy")).await;
        let mut of_second = call().await;
        let log = &vm.log;
        drains(&vm, agent, &[first, second], async move || {
            echo(&mut of_second).await;
            drop(of_second);
            let drained = format!("drained Envoy: no connection is left pid={second} ");
            eventually("the second's end of its drain", || log.text().contains(&drained)).await;
            echo(&mut of_first).await;
        })
        .await;
        assert_eq!(vm.leftovers(), Vec::<String>::new());
    })
    .await;
}
