//! The health of all applications of this VM as one: it is healthy when all are that count, as istiod hears of the VM as a
//! whole.

use std::sync::Arc;

use anyhow::Result;
use futures_util::future::try_join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::counted::Counted;
use super::{healthcheck, probe};
use crate::facts::{ContainerState, ProbeState, named};
use crate::part::{WorkloadChannels, any_changed};
use crate::supervise::Scope;

/// Whoever says how an application is.
#[derive(Debug)]
pub(super) struct Witness {
    /// The name of the application where there are several; `None` also for the VM as a whole.
    pub(super) name: Option<String>,
    pub(super) kind: Kind,
    /// The application, where it alone is asked: only that can be added without taking calls from the others.
    pub(super) own: Option<WorkloadChannels>,
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

/// Hears all of them, and publishes what they say together, until the drain. `workloads` are all applications, also those
/// for which nobody speaks.
pub(super) async fn run(
    scope: Scope,
    witnesses: Vec<Witness>,
    workloads: Arc<[WorkloadChannels]>,
    publish: watch::Sender<ProbeState>,
    mut counted: Counted,
) -> Result<()> {
    begin(&witnesses, &workloads, &counted);
    if witnesses.is_empty() {
        scope.ready();
    }
    let (mut voices, mut states, mut heard) = (Vec::new(), Vec::new(), Vec::new());
    for Witness {
        name,
        mut kind,
        own,
        gone,
    } in witnesses
    {
        if let Kind::Probe(options, _) = &mut kind {
            options.resumes = counted.resumes();
        }
        let was_added = own.as_ref().is_some_and(|own| own.pending.borrow().is_some());
        let (state, seen) = watch::channel(match &kind {
            Kind::Healthcheck(_) if !was_added => ProbeState::NotConfigured,
            _ => ProbeState::Unknown,
        });
        voices.push((name, own));
        states.push(seen);
        heard.push(hear_until(gone, scope.clone(), kind, state));
    }
    let folded = async {
        loop {
            let seen = states.iter_mut().map(|state| state.borrow_and_update().clone());
            let voices = voices.iter();
            let told = together(voices.clone().zip(seen).map(|((name, own), state)| {
                let counts = own.as_ref().is_none_or(|own| settle(own, &state));
                (name.as_deref(), if counts { state } else { ProbeState::NotConfigured })
            }));
            publish.send_if_modified(|old| std::mem::replace(old, told.clone()) != told);
            if matches!(told, ProbeState::Healthy | ProbeState::NotConfigured) {
                let counting = workloads.iter().filter(|own| own.pending.borrow().is_none());
                counted.keep(counting.map(|own| own.name.clone()).collect()).await;
            }
            tokio::select! {
                biased;
                () = scope.draining() => return Ok(()),
                changed = any_changed(&mut states) => if changed.is_err() {
                    // One has ended, and so does the agent.
                    scope.draining().await;
                }
            }
        }
    };
    let ended = tokio::try_join!(try_join_all(heard), folded);
    counted.forget().await?;
    ended.map(drop)
}

/// Tells which of the witnesses' applications were added, and don't count yet.
fn begin(witnesses: &[Witness], workloads: &[WorkloadChannels], counted: &Counted) {
    let names: Vec<_> = workloads.iter().map(|own| own.name.as_str()).collect();
    let added = counted.added(&names, witnesses.iter().any(|it| it.own.is_none()));
    let own = witnesses.iter().filter_map(|it| it.own.as_ref());
    for own in own.filter(|own| added.contains(own.name.as_str())) {
        own.pending.send_replace(Some(ProbeState::Unknown));
    }
}

/// True for an application that counts, which an added one does once it is well, or has started and is not asked.
fn settle(own: &WorkloadChannels, state: &ProbeState) -> bool {
    own.pending.send_if_modified(|pending| {
        let next = pending.as_ref().map(|_| state.clone());
        let next = next.filter(|state| !matches!(state, ProbeState::Healthy | ProbeState::NotConfigured));
        std::mem::replace(pending, next.clone()) != next
    });
    own.pending.borrow().is_none()
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
    use crate::facts::fixtures;
    use crate::host::{Host, System};

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

    fn counted(root: &tempfile::TempDir) -> impl Future<Output = Counted> {
        Counted::read(Host::new(root.path(), System), "/counted.json".into())
    }

    fn running(healthcheck: ProbeState) -> ContainerState {
        fixtures::running(None, healthcheck)
    }

    fn witness(own: &WorkloadChannels) -> Witness {
        Witness {
            name: Some(own.name.clone()),
            kind: Kind::Healthcheck(own.container.subscribe()),
            own: Some(own.clone()),
            gone: own.gone.clone(),
        }
    }

    #[tokio::test]
    async fn application_that_was_added_counts_once_it_is_well() {
        let unwell = || ProbeState::Unhealthy {
            reason: "answers 503".to_owned(),
        };
        let root = tempfile::tempdir().unwrap();
        counted(&root).await.keep(["web".to_owned()].into()).await;
        let own = ["web", "cache"].map(WorkloadChannels::named);
        let witnesses = own.iter().map(witness);
        let (scope, drain) = Scope::detached();
        let (publish, mut state) = watch::channel(ProbeState::Unknown);
        let task = run(
            scope,
            witnesses.collect(),
            own.to_vec().into(),
            publish,
            counted(&root).await,
        );
        let story = async {
            let [web, cache] = &own;
            let mut pending = cache.pending.subscribe();
            cache.container.send_replace(running(unwell()));
            pending.wait_for(|pending| *pending == Some(unwell())).await.unwrap();
            web.container.send_replace(running(ProbeState::Healthy));
            state.wait_for(|state| *state == ProbeState::Healthy).await.unwrap();
            cache.container.send_replace(running(ProbeState::Healthy));
            pending.wait_for(Option::is_none).await.unwrap();
            cache.container.send_replace(running(unwell()));
            let is_unwell = |state: &ProbeState| matches!(state, ProbeState::Unhealthy { .. });
            state.wait_for(is_unwell).await.unwrap();
            drain.cancel();
        };
        let (ended, ()) = tokio::join!(task, story);
        ended.unwrap();
        assert!(!root.path().join("counted.json").exists());
    }

    #[tokio::test]
    async fn container_that_was_added_without_a_healthcheck_counts_once_it_runs() {
        let root = tempfile::tempdir().unwrap();
        counted(&root).await.keep(["web".to_owned()].into()).await;
        let own = WorkloadChannels::named("cache");
        let workloads = [WorkloadChannels::named("web"), own.clone()];
        let witnesses = workloads.iter().map(witness).collect();
        let (scope, drain) = Scope::detached();
        let (publish, _state) = watch::channel(ProbeState::Unknown);
        let task = run(scope, witnesses, workloads.into(), publish, counted(&root).await);
        let story = async {
            let mut pending = own.pending.subscribe();
            assert!(pending.borrow_and_update().is_some(), "it counts before it runs");
            own.container.send_replace(running(ProbeState::NotConfigured));
            pending.wait_for(Option::is_none).await.unwrap();
            drain.cancel();
        };
        let (ended, ()) = tokio::join!(task, story);
        ended.unwrap();
    }

    #[tokio::test]
    async fn container_that_was_added_beside_those_of_which_nobody_speaks_counts_once_it_runs() {
        let root = tempfile::tempdir().unwrap();
        let web = WorkloadChannels::named("web");
        // Of the first agent; it is exec'ed, and so never drains.
        for witnesses in [vec![], vec![witness(&web)]] {
            let (scope, _drain) = Scope::detached();
            let (publish, _state) = watch::channel(ProbeState::NotConfigured);
            let task = run(scope, witnesses, [web.clone()].into(), publish, counted(&root).await);
            let kept = async {
                while !root.path().join("counted.json").exists() {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                ended = task => panic!("it ended: {ended:?}"),
                kept = tokio::time::timeout(std::time::Duration::from_secs(30), kept) => kept.expect("no names are kept"),
            }
            let cache = WorkloadChannels::named("cache");
            begin(&[witness(&cache)], &[web.clone(), cache.clone()], &counted(&root).await);
            assert!(cache.pending.borrow().is_some(), "it counts before it runs");
            std::fs::remove_file(root.path().join("counted.json")).unwrap();
        }
    }

    #[tokio::test]
    async fn healthchecks_of_all_containers_are_heard() {
        let containers = ["web", "cache"].map(|name| (name, watch::Sender::new(ContainerState::default())));
        let gone = CancellationToken::new();
        let witnesses = containers.iter().map(|(name, container)| Witness {
            gone: match *name {
                "cache" => gone.clone(),
                _ => CancellationToken::new(),
            },
            name: Some((*name).to_owned()),
            own: None,
            kind: Kind::Healthcheck(container.subscribe()),
        });
        let (scope, drain) = Scope::detached();
        let (publish, mut state) = watch::channel(ProbeState::NotConfigured);
        let root = tempfile::tempdir().unwrap();
        let task = run(scope, witnesses.collect(), [].into(), publish, counted(&root).await);
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
