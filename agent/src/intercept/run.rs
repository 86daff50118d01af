//! Keeps the kernel's rules as Envoy's state, the membership and the resolvers want them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::inbound::Inbound;
use super::nftables::Wall;
use super::{Carrier, Directions, Interception, Options, Ruleset, change_for, installed, owned_rules, policy};
use crate::config::{Backend, FailPolicy};
use crate::facts::{EnvoyState, HostEvent, HostState, InterceptState, Membership};
use crate::host::change::HostChange;
use crate::host::{Host, KernelChanges, Watched};
use crate::supervise::Scope;

/// Time between two comparisons of the kernel's rules with ours: not every change of theirs is told, and resolv.conf
/// changes with the network.
const COMPARE: Duration = Duration::from_secs(5);
/// After so long a kernel that took no rules for bridges is asked again, which starts a program.
const ASK_AGAIN: Duration = Duration::from_secs(60);
/// Time that the kernel is given for the first wall: one before 5.12 takes none, and says so to nobody.
const WALL_WITHIN: Duration = Duration::from_secs(1);
/// The failures in a row of such looks that make the rules fail: a moment without descriptors or memory ends nothing.
const LASTING: u32 = 3;

/// Puts the rules in once Envoy is ready, keeps them, and takes them out on drain. Rules of an earlier agent
/// stay as they are until then.
///
/// # Errors
/// When the rules can't be put in the first time, or not be taken out at the end. In between a failure is
/// published and tried again.
pub async fn run(
    scope: Scope,
    mut options: Options,
    mut membership: watch::Receiver<Arc<Membership>>,
    mut envoy: watch::Receiver<EnvoyState>,
    mut machine: watch::Receiver<HostState>,
    publish: watch::Sender<InterceptState>,
) -> Result<()> {
    let stood = earlier(&options, &publish).await?;
    let guarded = stood && options.config.on_envoy_down.inbound == FailPolicy::Closed;
    let asked = options.config.backend;
    let facts = Arc::clone(&membership.borrow());
    options.config.backend = chosen(&options, facts).await?;
    let mut compare = interval(COMPARE);
    compare.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut filter_changes = options.host.kernel_changes(Watched::PacketFilter);
    let mut beside = Beside::default();
    let (mut directions, mut was_ready, mut unasked, mut failures) = (None, false, false, 0);
    loop {
        let state = envoy.borrow_and_update().clone();
        // Until Envoy has been ready once there is nothing that a policy could be about.
        if was_ready || state.is_ready() {
            directions = policy::wanted(&state, options.config.on_envoy_down).or(directions);
        }
        let put_back = (directions.is_none() && guarded && lost(&options).await).then_some(Directions::INBOUND);
        if let Some(directions) = directions.or(put_back) {
            let facts = Arc::clone(&membership.borrow_and_update());
            let began = Instant::now();
            beside.forget(unasked);
            let done = put(&options, Arc::clone(&facts), directions, &mut beside).await;
            if unasked && done.as_ref().is_ok_and(|done| done.changed) {
                repaired(&options);
            }
            failures = if done.is_ok() { 0 } else { failures + 1 };
            let passes = unasked && was_ready && is_passing(failures, &publish.borrow());
            beside.wall(&options, &scope).await?;
            if let Err(error) = tell(&publish, done, directions, &state, began.elapsed(), passes) {
                options.config.backend = asked;
                if state.is_ready() && !was_ready {
                    // On a host that had none, half of the rules is worse.
                    if !stood {
                        take_out(&options).await?;
                    }
                    bail!("failed to redirect traffic to Envoy: {error}");
                }
            }
            beside.keep(&options, facts, directions).await?;
            if state.is_ready() && !was_ready {
                was_ready = true;
                scope.ready();
            }
        }
        unasked = false;
        tokio::select! {
            biased;
            () = scope.draining() => break,
            changed = envoy.changed() => changed.context("Envoy's publisher is gone")?,
            changed = membership.changed() => changed.context("the membership's publisher is gone")?,
            // A bridge that is new, or gone.
            changed = machine.changed() => changed.context("the machine's publisher is gone")?,
            () = filter_changes.next() => unasked = true,
            _ = compare.tick() => unasked = true,
        }
    }
    let began = Instant::now();
    drop(beside);
    take_out(&options).await?;
    announce(&publish, InterceptState::Absent, began.elapsed());
    Ok(())
}

/// Takes all rules out that are the agent's.
async fn take_out(options: &Options) -> Result<()> {
    match options.config.backend {
        Backend::None => Ok(()),
        _ => options.host.blocking(|host| owned_rules().revert(host)).await,
    }
}

/// Tells whether somebody has taken out the rules that were to stay until Envoy is ready.
async fn lost(options: &Options) -> bool {
    match options.host.blocking(installed).await {
        Ok(found) => found.is_none(),
        Err(error) => {
            tracing::debug!("the rules of an earlier agent are taken to be in: {error:#}");
            false
        }
    }
}

/// The backend that works here, found out while Envoy starts; as it was asked for where that can't be told yet.
async fn chosen(options: &Options, membership: Arc<Membership>) -> Result<Backend> {
    let options = options.clone();
    let host = options.host.clone();
    host.blocking(move |_| {
        let change = change_for(&membership, &options, Directions::BOTH);
        Ok(match change.map(|change| change.carrier) {
            Ok(Carrier::Nftables) => Backend::Nftables,
            Ok(Carrier::Iptables) => Backend::Iptables,
            _ => options.config.backend,
        })
    })
    .await
}

/// Tells of rules that are in already, and whether there are any; they stay until others are in.
async fn earlier(options: &Options, publish: &watch::Sender<InterceptState>) -> Result<bool> {
    if options.config.backend == Backend::None {
        return Ok(false);
    }
    let found = match options.host.blocking(installed).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!("the rules of an earlier agent are taken to be in: {error:#}");
            return Ok(true);
        }
    };
    let guarded = found.is_some();
    if let Some((carrier, rules)) = found {
        let backend = carrier.name();
        tracing::info!(
            backend,
            rules,
            "the rules of an earlier agent stay until Envoy is ready"
        );
        publish.send_replace(InterceptState::Active {
            backend: backend.to_owned(),
            rules,
            open_bridge: None,
        });
    }
    Ok(guarded)
}

/// The rules that are in after a success.
struct Done {
    backend: &'static str,
    rules: usize,
    open_bridge: Option<String>,
    changed: bool,
}

/// The rules of the last look, and whether they are in.
struct Followed {
    carrier: Carrier,
    ruleset: Ruleset,
    are_in: bool,
}

/// State beside the rules, from one look to the next.
#[derive(Default)]
struct Beside {
    wall: Option<Wall>,
    /// Rules that the wall is to follow next.
    followed: Option<Followed>,
    /// Why the kernel took no rules for bridges, and when it was asked.
    refusal: Option<(Instant, Arc<anyhow::Error>)>,
}

impl Beside {
    /// Has the kernel asked again where something has changed, or after a while.
    fn forget(&mut self, unasked: bool) {
        let is_good = |(since, _): &(Instant, _)| unasked && since.elapsed() < ASK_AGAIN;
        self.refusal = self.refusal.take().filter(is_good);
    }

    /// Has the wall follow the rules. The first one is waited for, as the program that makes it says nothing, and whoever is
    /// told that the VM is ready may flush all rules the moment after.
    async fn wall(&mut self, options: &Options, scope: &Scope) -> Result<()> {
        let Some(Followed { carrier, ruleset, .. }) = &self.followed else {
            return Ok(());
        };
        let (carrier, ruleset) = (*carrier, ruleset.clone());
        let wall = self.wall.take();
        // Subscribed before the wall is sent, so that its coming is not missed.
        let changes = wall
            .is_none()
            .then(|| options.host.kernel_changes(Watched::PacketFilter));
        let follow = move |host: &Host| {
            Ok(match carrier {
                Carrier::None => None,
                _ => walled(wall, host, &ruleset),
            })
        };
        self.wall = options.host.blocking(follow).await?;
        if let (Some(changes), true) = (changes, self.wall.is_some()) {
            tokio::select! {
                biased;
                () = scope.draining() => {}
                looked = wall_stands(&options.host, changes) => looked?,
                () = sleep(WALL_WITHIN) => tracing::debug!("the kernel has shown no second table of drops within {WALL_WITHIN:?}"),
            }
        }
        Ok(())
    }

    /// Writes down the rules for the guard of the next boot. The VM is told to be ready before: it takes a disk's time.
    async fn keep(&mut self, options: &Options, membership: Arc<Membership>, directions: Directions) -> Result<()> {
        let is_in = self.followed.take().is_some_and(|followed| followed.are_in);
        if !is_in || !directions.inbound {
            return Ok(());
        }
        let kept = options.kept.clone();
        let keep = move |host: &Host| {
            Inbound::of(&membership)
                .keep(host, &kept)
                .unwrap_or_else(|error| tracing::warn!("{error:#}"));
            Ok(())
        };
        options.host.blocking(keep).await
    }
}

/// Waits for the wall in the kernel.
async fn wall_stands(host: &Host, mut changes: KernelChanges) -> Result<()> {
    while !host.blocking(|host| Ok(Wall::is_standing(host))).await? {
        changes.next().await;
    }
    Ok(())
}

async fn put(
    options: &Options,
    membership: Arc<Membership>,
    directions: Directions,
    beside: &mut Beside,
) -> Result<Done> {
    let options = options.clone();
    let host = options.host.clone();
    let standing = std::mem::take(beside);
    let (kept, done) = host
        .blocking(move |host| {
            let mut change = match change_for(&membership, &options, directions) {
                Ok(change) => change,
                // It stands as it was.
                Err(error) => return Ok((standing, Err(error))),
            };
            if let Some((_, reason)) = &standing.refusal {
                change.bridge_refusal = Some(Arc::clone(reason)).into();
            }
            let done = apply(host, &change);
            let refusal = change.bridge_refusal.into_inner().flatten();
            let refusal = standing
                .refusal
                .or_else(|| refusal.map(|reason| (Instant::now(), reason)));
            let followed = Followed {
                carrier: change.carrier,
                ruleset: change.ruleset,
                are_in: done.is_ok(),
            };
            let kept = Beside {
                wall: standing.wall,
                followed: Some(followed),
                refusal,
            };
            Ok((kept, done))
        })
        .await?;
    *beside = kept;
    done
}

fn apply(host: &Host, change: &Interception) -> Result<Done> {
    let changed = change.ensure(host)?;
    Ok(Done {
        backend: change.carrier.name(),
        rules: change.ruleset.len(),
        open_bridge: change.open_bridge(host).map(|error| format!("{error:#}")),
        changed,
    })
}

/// Without the wall the rules hold as long as nobody takes them out.
fn walled(wall: Option<Wall>, host: &Host, ruleset: &Ruleset) -> Option<Wall> {
    Wall::keep(wall, host, ruleset)
        .inspect_err(|error| tracing::debug!("there is no second table of drops, kept from others: {error}"))
        .ok()
        .flatten()
}

/// True for the first failures of looks at rules that stand.
fn is_passing(failures: u32, state: &InterceptState) -> bool {
    failures < LASTING && matches!(state, InterceptState::Active { .. })
}

fn repaired(options: &Options) {
    options.repairs.inc();
    tracing::warn!(
        code = HostEvent::RulesRepaired.code(),
        "put the rules right: something else changed them, or the resolvers or a bridge changed"
    );
}

/// Publishes what came of putting the rules in; the error in words where they couldn't be, unless it passes.
fn tell(
    publish: &watch::Sender<InterceptState>,
    done: Result<Done>,
    directions: Directions,
    envoy: &EnvoyState,
    took: Duration,
    passes: bool,
) -> Result<(), String> {
    match done {
        Ok(done) => {
            let now = published(&done, directions, envoy).unwrap_or_else(|| publish.borrow().clone());
            announce(publish, now, took);
            Ok(())
        }
        Err(error) if passes => {
            tracing::warn!("failed to compare the rules, which is tried again: {error:#}");
            Ok(())
        }
        Err(error) => {
            let error = format!("{error:#}");
            announce(publish, InterceptState::Failed { error: error.clone() }, took);
            Err(error)
        }
    }
}

/// `None`: as it was, for Envoy isn't ready again yet.
fn published(done: &Done, directions: Directions, envoy: &EnvoyState) -> Option<InterceptState> {
    if done.backend == Carrier::None.name() {
        return Some(InterceptState::Absent);
    }
    if directions == Directions::BOTH {
        return Some(InterceptState::Active {
            backend: done.backend.to_owned(),
            rules: done.rules,
            open_bridge: done.open_bridge.clone(),
        });
    }
    match envoy {
        EnvoyState::Down { reason } => Some(InterceptState::Open { reason: reason.clone() }),
        _ => None,
    }
}

/// Publishes a state that is new, and says how long it took to get there.
fn announce(publish: &watch::Sender<InterceptState>, state: InterceptState, took: Duration) {
    if *publish.borrow() == state {
        return;
    }
    match &state {
        InterceptState::Absent => tracing::info!(?took, "traffic is not redirected"),
        InterceptState::Active { backend, rules, .. } => {
            tracing::info!(backend, rules, ?took, "traffic is redirected to Envoy");
        }
        InterceptState::Open { reason } => tracing::warn!(reason, "traffic goes past Envoy, as on_envoy_down says"),
        InterceptState::Failed { error } => tracing::error!("failed to redirect traffic to Envoy: {error}"),
    }
    publish.send_replace(state);
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::control_plane::fixtures::membership;
    use crate::facts::HostBridge;
    use crate::host::fixtures::{Answers, failed};
    use crate::host::{CommandError, Invocation, Run};
    use crate::intercept::Bridge;

    /// A kernel that takes no rules for bridges, and how often it was asked.
    #[derive(Clone, Debug, Default)]
    struct WithoutBridges(Arc<AtomicUsize>);

    impl Run for WithoutBridges {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            let is_of_bridges = call.stdin.contains("table bridge");
            let has = |word: &str| call.argv.iter().any(|it| it == word);
            self.0
                .fetch_add(usize::from(is_of_bridges && has("-c")), Ordering::Relaxed);
            match (has("list"), is_of_bridges) {
                (true, _) => failed(call, "No such file or directory"),
                (false, true) => failed(call, "Operation not supported"),
                (false, false) => Ok(String::new()),
            }
        }

        fn bridges(&self) -> io::Result<Vec<HostBridge>> {
            Ok(vec![HostBridge {
                interface: "docker0".to_owned(),
                addresses: Vec::new(),
                networks: vec!["172.17.0.0/16".parse().expect("a network")],
                is_inner: true,
            }])
        }
    }

    #[tokio::test]
    async fn kernel_without_rules_for_bridges_is_asked_once_as_long_as_it_is_remembered() {
        let kernel = WithoutBridges::default();
        let asked = Arc::clone(&kernel.0);
        let mut options = Options::by_default(Host::new("/nonexistent", kernel));
        options.config.backend = Backend::Nftables;
        options.bridge = Some(Bridge {
            interface: "docker0".to_owned(),
            ports: vec!["3550:8080".parse().unwrap()],
            cloud_identity: false,
        });
        let mut beside = Beside::default();
        for is_forgotten in [true, false, false, true, false] {
            if is_forgotten {
                beside.refusal = None;
                asked.store(0, Ordering::Relaxed);
            }
            let done = put(&options, Arc::new(membership()), Directions::BOTH, &mut beside).await;
            let open_bridge = done.unwrap().open_bridge.unwrap();
            assert!(open_bridge.contains("Operation not supported"), "{open_bridge}");
            assert_eq!(asked.load(Ordering::Relaxed), 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rules_are_in_before_the_file_for_the_next_boot_is_written() {
        let root = tempfile::tempdir().unwrap();
        let mut options = Options::by_default(Host::new(root.path(), WithoutBridges::default()));
        options.config.backend = Backend::Nftables;
        options.kept = "/inbound.json".into();
        let (facts, mut beside) = (Arc::new(membership()), Beside::default());
        let is_kept = || options.host.exists(&options.kept);
        let done = put(&options, Arc::clone(&facts), Directions::BOTH, &mut beside).await;
        assert!(done.is_ok() && !is_kept());
        beside.wall(&options, &Scope::detached().0).await.unwrap();
        assert!(!is_kept(), "what is ready waits for no disk");
        beside.keep(&options, facts, Directions::BOTH).await.unwrap();
        assert!(is_kept());
    }

    #[tokio::test]
    async fn rules_that_can_not_be_looked_at_are_taken_to_be_in() {
        let host = Host::new(
            "/nonexistent",
            Answers(|call: &Invocation| failed(call, "Cannot allocate memory")),
        );
        assert!(installed(&host).is_err());
        let options = Options::by_default(host);
        assert!(!lost(&options).await);
        let publish = watch::Sender::default();
        assert!(earlier(&options, &publish).await.unwrap());
        assert_eq!(*publish.borrow(), InterceptState::Absent);
    }

    #[test]
    fn failed_look_at_rules_that_stand_ends_nothing_until_it_lasts() {
        let active = InterceptState::Active {
            backend: "nftables".to_owned(),
            rules: 1,
            open_bridge: None,
        };
        let passing = |state: &InterceptState| (1..5).map(|failures| is_passing(failures, state)).collect::<Vec<_>>();
        assert_eq!(passing(&active), [true, true, false, false]);
        assert_eq!(passing(&InterceptState::Absent), [false; 4]);
    }
}
