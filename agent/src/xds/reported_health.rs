//! Health as istiod is told of it: the application's by its probe, once the VM serves and until it leaves.

use std::convert::Infallible;
use std::future::pending;

use tokio::sync::watch;

use crate::facts::{ContainerState, Departure, Health, ProbeState};
use crate::part::any_changed;

/// The facts that decide what istiod is told.
#[derive(Debug)]
pub(super) struct Facts {
    /// Health of the application.
    pub(super) probe: watch::Receiver<ProbeState>,
    /// The one verdict on the VM.
    pub(super) health: watch::Receiver<Health>,
    /// The VM's way out of the mesh.
    pub(super) departure: watch::Receiver<Departure>,
    /// The applications' containers.
    pub(super) containers: Vec<watch::Receiver<ContainerState>>,
}

/// Health of a VM at an address that it has left.
pub(super) fn at_left_address() -> ProbeState {
    ProbeState::Unhealthy {
        reason: "the VM has another address".to_owned(),
    }
}

/// Publishes what istiod is to be told, for ever.
pub(super) async fn follow(mut facts: Facts, told: watch::Sender<ProbeState>) -> Infallible {
    loop {
        let probe = facts.probe.borrow_and_update().clone();
        let ready = facts.health.borrow_and_update().ready;
        // All are looked at: one that is not would count as changed.
        let leaving = facts
            .containers
            .iter_mut()
            .map(|it| it.borrow_and_update().is_leaving());
        let replaced = leaving.fold(false, |any, leaves| any | leaves);
        let leaving = facts.departure.borrow_and_update().is_leaving() || replaced;
        told.send_if_modified(|told| {
            let next = next(told, probe, ready, leaving);
            next.is_some_and(|next| std::mem::replace(told, next.clone()) != next)
        });
        let changed = tokio::select! {
            changed = facts.probe.changed() => changed,
            changed = facts.health.changed() => changed,
            changed = facts.departure.changed() => changed,
            changed = any_changed(&mut facts.containers) => changed,
        };
        if changed.is_err() {
            // A publisher is gone, and so is the agent soon.
            return pending().await;
        }
    }
}

/// The next thing to tell; `None`: what was told stands. A VM that is not ready yet is not told to be healthy, because
/// istiod would have it called. A healthy one that is unready for a moment stays healthy: taking it out and in again takes
/// longer than a restart of Envoy does. Without a probe istiod takes no word on the VM's health.
fn next(told: &ProbeState, probe: ProbeState, ready: bool, leaving: bool) -> Option<ProbeState> {
    match probe {
        ProbeState::NotConfigured => Some(probe),
        _ if leaving => Some(ProbeState::Unhealthy {
            reason: "the VM is leaving the mesh, or its container is being replaced".to_owned(),
        }),
        ProbeState::Healthy if !ready && *told != ProbeState::Healthy => None,
        probe => Some(probe),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unhealthy() -> ProbeState {
        ProbeState::Unhealthy {
            reason: "answers 503".to_owned(),
        }
    }

    #[test]
    fn healthy_is_told_of_a_vm_that_serves() {
        let healthy = || ProbeState::Healthy;
        for told in [ProbeState::Unknown, unhealthy()] {
            assert_eq!(next(&told, healthy(), false, false), None);
            assert_eq!(next(&told, healthy(), true, false), Some(healthy()));
        }
        assert_eq!(next(&healthy(), healthy(), false, false), Some(healthy()));
        assert_eq!(next(&healthy(), unhealthy(), false, false), Some(unhealthy()));
    }

    #[tokio::test(start_paused = true)]
    async fn vm_that_leaves_is_unhealthy_whatever_its_probe_says() {
        let probe = watch::Sender::new(ProbeState::Healthy);
        let health = watch::Sender::new(Health::default());
        let departure = watch::Sender::new(Departure::Staying);
        let container = watch::Sender::new(ContainerState::NotConfigured);
        let other = watch::Sender::new(ContainerState::NotConfigured);
        let facts = Facts {
            probe: probe.subscribe(),
            health: health.subscribe(),
            departure: departure.subscribe(),
            containers: vec![container.subscribe(), other.subscribe()],
        };
        let told = watch::Sender::new(ProbeState::Unknown);
        let mut hears = told.subscribe();
        let story = async {
            health.send_modify(|health| health.ready = true);
            hears.wait_for(|told| *told == ProbeState::Healthy).await.unwrap();
            let id = "c0ffee".to_owned();
            container.send_replace(ContainerState::Leaving { id });
            hears.wait_for(|told| *told != ProbeState::Healthy).await.unwrap();
            container.send_replace(ContainerState::NotConfigured);
            hears.wait_for(|told| *told == ProbeState::Healthy).await.unwrap();
            departure.send_replace(Departure::Announced);
            let leaving =
                |told: &ProbeState| matches!(told, ProbeState::Unhealthy { reason } if reason.contains("leaving"));
            hears.wait_for(leaving).await.unwrap();
            probe.send_replace(unhealthy());
            probe.send_replace(ProbeState::Healthy);
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            assert!(leaving(&hears.borrow()));
        };
        tokio::select! {
            never = follow(facts, told.clone()) => match never {},
            () = story => {}
        }
    }
}
