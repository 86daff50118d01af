//! Without a probe, the HEALTHCHECK of the container's image in its place.

use anyhow::Result;
use tokio::sync::watch;

use crate::facts::{ContainerState, ProbeState};
use crate::supervise::Scope;

/// Publishes what the HEALTHCHECK says, until the drain.
pub(super) async fn run(
    scope: Scope,
    mut container: watch::Receiver<ContainerState>,
    publish: watch::Sender<ProbeState>,
) -> Result<()> {
    scope.ready();
    loop {
        let told = told(&container.borrow_and_update());
        publish.send_if_modified(|old| match told {
            Some(told) if *old != told => {
                *old = told;
                true
            }
            _ => false,
        });
        tokio::select! {
            biased;
            () = scope.draining() => return Ok(()),
            changed = container.changed() => if changed.is_err() { return Ok(()) },
        }
    }
}

/// State by a container's HEALTHCHECK; `None` for one that doesn't run, or is about to end: what it said last stands.
fn told(container: &ContainerState) -> Option<ProbeState> {
    match container {
        ContainerState::Running { healthcheck, .. } => Some(healthcheck.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn application_without_a_probe_is_what_its_containers_healthcheck_says() {
        let running = |healthcheck| ContainerState::Running {
            id: "c0ffee".to_owned(),
            restarts: 0,
            outdated: false,
            address: None,
            successor: None,
            trouble: None,
            exposed: Vec::new(),
            healthcheck,
        };
        let container = watch::Sender::new(running(ProbeState::NotConfigured));
        let (scope, drain) = Scope::detached();
        let (publish, mut state) = watch::channel(ProbeState::NotConfigured);
        let task = run(scope, container.subscribe(), publish);
        let story = async {
            let reason = "the HEALTHCHECK of its image fails".to_owned();
            for said in [
                ProbeState::Unknown,
                ProbeState::Healthy,
                ProbeState::Unhealthy { reason },
            ] {
                container.send_replace(running(said.clone()));
                state.wait_for(|state| *state == said).await.unwrap();
            }
            let id = "c0ffee".to_owned();
            container.send_replace(ContainerState::Leaving { id });
            container.send_replace(running(ProbeState::Healthy));
            state.wait_for(|state| *state == ProbeState::Healthy).await.unwrap();
            drain.cancel();
        };
        let (ended, ()) = tokio::join!(task, story);
        ended.unwrap();
    }
}
