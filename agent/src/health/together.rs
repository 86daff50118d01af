//! The health of all applications of this VM as one: it is healthy when all are, as istiod hears of the VM as a whole.

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{healthcheck, probe};
use crate::facts::{ContainerState, ProbeState, named};
use crate::part::any_changed;
use crate::supervise::Scope;

/// Whoever says how an application is.
#[derive(Debug)]
pub(super) struct Witness {
    /// The name of the application where there are several; `None` also for the VM as a whole.
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    /// Cancelled when the application is to end for good: from then on it is not asked, and is no part of the whole.
    pub(super) gone: CancellationToken,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A probe, and the facts that it depends on.
    Probe(Box<probe::Options>, probe::Facts),
    /// The HEALTHCHECK of the image of a container without a probe.
    Healthcheck(watch::Receiver<ContainerState>),
}

/// Hears all of them, and publishes what they say together, until the drain.
pub(super) async fn run(scope: Scope, witnesses: Vec<Witness>, publish: watch::Sender<ProbeState>) -> Result<()> {
    let (mut names, mut states, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for Witness { name, kind, gone } in witnesses {
        let (state, seen) = watch::channel(match &kind {
            Kind::Probe(..) => ProbeState::Unknown,
            Kind::Healthcheck(_) => ProbeState::NotConfigured,
        });
        names.push(name);
        states.push(seen);
        heard.push(hear_until(gone, scope.clone(), kind, state));
    }
    let folded = async {
        loop {
            let seen = states.iter_mut().map(|state| state.borrow_and_update().clone());
            let told = together(names.iter().map(Option::as_deref).zip(seen));
            publish.send_if_modified(|old| std::mem::replace(old, told.clone()) != told);
            if any_changed(&mut states).await.is_err() {
                // One has ended, and so does the agent.
                return std::future::pending::<Result<()>>().await;
            }
        }
    };
    tokio::select! {
        ended = try_join_all(heard) => ended.map(drop),
        never = folded => never,
    }
}

async fn hear_until(
    gone: CancellationToken,
    scope: Scope,
    kind: Kind,
    publish: watch::Sender<ProbeState>,
) -> Result<()> {
    tokio::select! {
        biased;
        () = gone.cancelled() => {
            publish.send_replace(ProbeState::NotConfigured);
            scope.draining().await;
            Ok(())
        }
        ended = hear(scope.clone(), kind, publish.clone()) => ended,
    }
}

async fn hear(scope: Scope, kind: Kind, publish: watch::Sender<ProbeState>) -> Result<()> {
    match kind {
        Kind::Probe(options, facts) => probe::run(scope, *options, facts, publish).await,
        Kind::Healthcheck(container) => healthcheck::run(scope, container, publish).await,
    }
}

/// One that is unhealthy makes the whole so, and one that is not known yet keeps it from being healthy. A container whose
/// image has no HEALTHCHECK says nothing.
fn together<'a>(states: impl Iterator<Item = (Option<&'a str>, ProbeState)>) -> ProbeState {
    let (mut reasons, mut is_unknown, mut is_healthy) = (Vec::new(), false, false);
    for (name, state) in states {
        match state {
            ProbeState::NotConfigured => {}
            ProbeState::Unknown => is_unknown = true,
            ProbeState::Healthy => is_healthy = true,
            ProbeState::Unhealthy { reason } => reasons.push(named(name, &reason)),
        }
    }
    match (reasons.is_empty(), is_unknown, is_healthy) {
        (false, _, _) => ProbeState::Unhealthy {
            reason: reasons.join("; "),
        },
        (true, true, _) => ProbeState::Unknown,
        (true, false, true) => ProbeState::Healthy,
        (true, false, false) => ProbeState::NotConfigured,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vm_is_healthy_when_all_of_its_applications_are() {
        let unhealthy = |reason: &str| ProbeState::Unhealthy {
            reason: reason.to_owned(),
        };
        let with = |cache: ProbeState| {
            let web = ProbeState::Healthy;
            together([(Some("web"), web), (Some("cache"), cache)].into_iter())
        };
        assert_eq!(with(ProbeState::Healthy), ProbeState::Healthy);
        assert_eq!(with(ProbeState::NotConfigured), ProbeState::Healthy);
        assert_eq!(with(ProbeState::Unknown), ProbeState::Unknown);
        assert_eq!(with(unhealthy("answers 503")), unhealthy("cache: answers 503"));
        assert_eq!(together(std::iter::empty()), ProbeState::NotConfigured);
    }

    #[tokio::test]
    async fn healthchecks_of_all_containers_are_heard() {
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
        let containers = ["web", "cache"].map(|name| (name, watch::Sender::new(ContainerState::default())));
        let gone = CancellationToken::new();
        let witnesses = containers.iter().map(|(name, container)| Witness {
            gone: match *name {
                "cache" => gone.clone(),
                _ => CancellationToken::new(),
            },
            name: Some((*name).to_owned()),
            kind: Kind::Healthcheck(container.subscribe()),
        });
        let (scope, drain) = Scope::detached();
        let (publish, mut state) = watch::channel(ProbeState::NotConfigured);
        let task = run(scope, witnesses.collect(), publish);
        let story = async {
            let [(_, web), (_, cache)] = &containers;
            web.send_replace(running(ProbeState::Healthy));
            state.wait_for(|state| *state == ProbeState::Healthy).await.unwrap();
            let reason = "the HEALTHCHECK of its image fails".to_owned();
            cache.send_replace(running(ProbeState::Unhealthy { reason }));
            let told = state.wait_for(|state| *state != ProbeState::Healthy).await.unwrap();
            assert!(format!("{told:?}").contains("cache: the HEALTHCHECK"), "{told:?}");
            drop(told);
            gone.cancel();
            state.wait_for(|state| *state == ProbeState::Healthy).await.unwrap();
            drain.cancel();
        };
        let (ended, ()) = tokio::join!(task, story);
        ended.unwrap();
    }
}
