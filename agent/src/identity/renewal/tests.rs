use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::bail;
use tokio::time::timeout;

use super::*;
use crate::config::IdentityConfig;
use crate::control_plane::ControlPlaneSelector;
use crate::control_plane::fixtures::{Ca, issued_by, membership};
use crate::host::System;
use crate::supervise::Supervisor;

const HOUR: Duration = Duration::from_secs(3600);
const FILE: &str = "/state/identity.json";

/// A CA that signs, or not, as the test says.
struct Scripted {
    ca: Ca,
    clock: Mutex<Clock>,
    life: Duration,
    down: AtomicBool,
    /// The time of each call, and whether it came with a certificate.
    calls: Mutex<Vec<(SystemTime, bool)>>,
}

impl CertificateIssuer for Arc<Scripted> {
    async fn issue(&self, membership: &Membership, current: Option<&Credentials>) -> Result<Credentials> {
        let now = self.clock.lock().unwrap().now();
        self.calls.lock().unwrap().push((now, current.is_some()));
        if self.down.load(Ordering::SeqCst) {
            bail!("the CA is down");
        }
        Ok(Credentials {
            spiffe_id: membership.spiffe_id.clone(),
            ..issued_by(&self.ca, now, now + self.life)
        })
    }
}

/// One VM: its disk, its CA, and what it publishes.
struct Vm {
    disk: tempfile::TempDir,
    ca: Arc<Scripted>,
    membership: watch::Sender<Arc<Membership>>,
    published: watch::Sender<Option<Arc<Credentials>>>,
    problem: watch::Sender<Option<IdentityProblem>>,
    state: watch::Sender<HostState>,
    drain: Option<tokio_util::sync::CancellationToken>,
}

impl Vm {
    fn new(life: Duration) -> Self {
        let clock = Clock::starting_at(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000));
        let ca = Scripted {
            ca: Ca::new("mesh"),
            clock: Mutex::new(clock),
            life,
            down: AtomicBool::new(false),
            calls: Mutex::default(),
        };
        let membership = Membership {
            roots_pem: ca.ca.root_pem(),
            ..membership()
        };
        Self {
            disk: tempfile::tempdir().unwrap(),
            ca: Arc::new(ca),
            membership: watch::channel(Arc::new(membership)).0,
            published: watch::channel(None).0,
            problem: watch::channel(None).0,
            state: watch::Sender::default(),
            drain: None,
        }
    }

    fn host(&self) -> Host {
        Host::new(self.disk.path(), System)
    }

    fn renewal(&self, scope: Scope) -> Renewal<Arc<Scripted>> {
        let options = Options {
            selector: ControlPlaneSelector::new(vec!["istiod:15012".to_owned()], Duration::ZERO, Clock::System),
            tokens: None,
            host: self.host(),
            config: IdentityConfig::default(),
            store: FILE.into(),
            clock: *self.ca.clock.lock().unwrap(),
            problem: self.problem.clone(),
        };
        Renewal::new(scope, options, Arc::clone(&self.ca), self.published.clone())
    }

    /// Starts an agent, in place of an earlier one.
    fn start(&mut self) {
        self.published.send_replace(None);
        if let Some(drain) = self.drain.take() {
            drain.cancel();
        }
        let (scope, drain) = Scope::detached();
        let (renewal, membership) = (self.renewal(scope.clone()), self.membership.subscribe());
        scope.spawn(renewal.run(membership, self.state.subscribe()));
        self.drain = Some(drain);
    }

    /// The certificate that is published once `wanted` holds of it.
    async fn publishes(&self, wanted: impl Fn(&Credentials) -> bool) -> Arc<Credentials> {
        let mut published = self.published.subscribe();
        let found = published.wait_for(|credentials| credentials.as_deref().is_some_and(&wanted));
        timeout(100 * HOUR, found).await.unwrap().unwrap().clone().unwrap()
    }

    fn calls(&self) -> Vec<(SystemTime, bool)> {
        self.ca.calls.lock().unwrap().clone()
    }

    fn change(&self, edit: impl FnOnce(&mut Membership)) {
        self.membership
            .send_modify(|membership| edit(Arc::make_mut(membership)));
    }
}

/// Renewals of a thousand VMs that joined in the same second, by minute, for a day of their time.
#[test]
fn renewals_of_a_fleet_drift_apart() {
    let mut by_minute = vec![0; 24 * 60];
    for _ in 0..1000 {
        let mut now = SystemTime::UNIX_EPOCH;
        loop {
            now = renewal_time(now, now + 8 * HOUR, fastrand::f64() * 2.0 - 1.0);
            let minute = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() / 60;
            let Some(count) = by_minute.get_mut(minute as usize) else {
                break;
            };
            *count += 1;
        }
    }
    let most = |hours: std::ops::Range<usize>| by_minute[hours.start * 60..hours.end * 60].iter().max().unwrap();
    assert!(*most(0..6) < 200, "the first renewals: {by_minute:?}");
    assert!(
        most(18..24) < most(0..6),
        "the last ones come as close as the first: {by_minute:?}"
    );
}

#[test]
fn renewal_is_due_at_half_of_life_give_or_take_a_hundredth() {
    let start = SystemTime::UNIX_EPOCH;
    let cases = [
        (24 * HOUR, 0.0, 43_200),
        (24 * HOUR, 1.0, 44_064),
        (24 * HOUR, -1.0, 42_336),
        (HOUR / 3600, 0.0, 1),
    ];
    for (life, jitter, expected) in cases {
        let after = renewal_time(start, start + life, jitter).duration_since(start).unwrap();
        assert_eq!(after.as_secs_f64().round() as u64, expected);
    }
    // A certificate that ends before it starts is renewed, and not at once.
    assert_eq!(
        renewal_time(start + HOUR, start, 0.0),
        start + HOUR + MIN_RENEWAL_INTERVAL
    );
}

#[tokio::test(start_paused = true)]
async fn certificate_is_renewed_at_half_of_its_life() {
    let mut vm = Vm::new(24 * HOUR);
    vm.start();
    let mut last = vm.publishes(|_| true).await;
    for _ in 0..3 {
        let next = vm.publishes(|next| next.not_before != last.not_before).await;
        let after = next.not_before.duration_since(last.not_before).unwrap();
        assert!(
            after >= 24 * HOUR * 49 / 100 && after <= 24 * HOUR * 51 / 100 + MIN_RENEWAL_INTERVAL,
            "{after:?}"
        );
        assert_ne!(next.key, last.key);
        last = next;
    }
    let shown: Vec<bool> = vm.calls().into_iter().map(|(_, shown)| shown).collect();
    assert_eq!(
        shown,
        [false, true, true, true],
        "renewed with the certificate, and once each"
    );
}

#[tokio::test(start_paused = true)]
async fn certificate_for_longer_than_was_asked_for_is_renewed_as_one_that_is_not() {
    let mut vm = Vm::new(7900 * 365 * 24 * HOUR);
    vm.start();
    let first = vm.publishes(|_| true).await;
    let next = vm.publishes(|next| next.not_before != first.not_before).await;
    let after = next.not_before.duration_since(first.not_before).unwrap();
    assert!(after <= 13 * HOUR, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn certificate_is_served_while_the_ca_is_down() {
    let mut vm = Vm::new(24 * HOUR);
    vm.start();
    let old = vm.publishes(|_| true).await;
    vm.ca.down.store(true, Ordering::SeqCst);
    sleep(36 * HOUR).await;
    assert_eq!(
        vm.published.borrow().as_ref(),
        Some(&old),
        "even past its end: it is for peers to judge"
    );
    let problem = vm.problem.borrow().clone().map(|problem| problem.text);
    assert_eq!(problem.as_deref(), Some("the CA is down"));
    let calls = vm.calls();
    let gaps: Vec<Duration> = calls
        .windows(2)
        .skip(1)
        .map(|pair| pair[1].0.duration_since(pair[0].0).unwrap())
        .collect();
    assert!(
        gaps.iter()
            .all(|gap| *gap <= CLOCK_CHECK_INTERVAL + MIN_RENEWAL_INTERVAL),
        "{gaps:?}"
    );
    assert!(
        gaps[20..].iter().all(|gap| *gap >= MAX_WAIT_WHEN_EXPIRING / 2),
        "no storm: {gaps:?}"
    );
    assert!(
        gaps.last().unwrap() <= &(MAX_WAIT_WHEN_EXPIRING + MIN_RENEWAL_INTERVAL),
        "hurries when the certificate has ended: {gaps:?}"
    );
    vm.ca.down.store(false, Ordering::SeqCst);
    sleep(MAX_WAIT_WHEN_EXPIRING + MIN_RENEWAL_INTERVAL).await;
    assert_ne!(vm.published.borrow().as_ref(), Some(&old));
    assert_eq!(*vm.problem.borrow(), None);
}

#[tokio::test(start_paused = true)]
async fn restart_with_a_valid_certificate_asks_for_none() {
    let mut vm = Vm::new(24 * HOUR);
    vm.start();
    let first = vm.publishes(|_| true).await;
    sleep(HOUR).await;
    vm.ca.down.store(true, Ordering::SeqCst);
    vm.start();
    let second = vm.publishes(|_| true).await;
    assert_eq!((&first.key, &first.chain_pem), (&second.key, &second.chain_pem));
    sleep(HOUR).await;
    assert_eq!(vm.calls().len(), 1);
    vm.ca.down.store(false, Ordering::SeqCst);
    vm.publishes(|next| next.key != first.key).await;
    let after = vm.calls()[1].0.duration_since(first.not_before).unwrap();
    assert!(
        after <= 24 * HOUR * 51 / 100 + MIN_RENEWAL_INTERVAL,
        "the restart doesn't put the renewal off: {after:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn stored_certificate_that_cannot_serve_is_replaced() {
    for damage in ["", "{}", "not JSON"] {
        let mut vm = Vm::new(24 * HOUR);
        vm.host().make_directory("/state".as_ref(), 0o700, None).unwrap();
        vm.host().write(FILE.as_ref(), damage, 0o600, None).unwrap();
        vm.start();
        let new = vm.publishes(|_| true).await;
        sleep(CLOCK_CHECK_INTERVAL).await;
        assert_eq!(store::load(&vm.host(), FILE.as_ref()).unwrap().unwrap().key, new.key);
    }
    let mut vm = Vm::new(HOUR);
    vm.start();
    let old = vm.publishes(|_| true).await;
    vm.drain.take().unwrap().cancel();
    sleep(2 * HOUR).await;
    vm.ca.down.store(true, Ordering::SeqCst);
    vm.start();
    sleep(CLOCK_CHECK_INTERVAL).await;
    assert_eq!(*vm.published.borrow(), None, "expired while the agent was off");
    vm.ca.down.store(false, Ordering::SeqCst);
    assert_ne!(vm.publishes(|_| true).await.key, old.key);
    vm.change(|membership| membership.spiffe_id.namespace = "other".to_owned());
    vm.start();
    assert_eq!(
        vm.publishes(|_| true).await.spiffe_id.namespace,
        "other",
        "another VM's disk"
    );
}

#[tokio::test(start_paused = true)]
async fn new_identity_is_certified_without_showing_the_old_one() {
    let mut vm = Vm::new(24 * HOUR);
    vm.start();
    vm.publishes(|_| true).await;
    vm.change(|membership| membership.node_name = "renamed".to_owned());
    sleep(CLOCK_CHECK_INTERVAL).await;
    assert_eq!(vm.calls().len(), 1, "what the certificate doesn't say changes nothing");
    vm.change(|membership| membership.spiffe_id.service_account = "other".to_owned());
    vm.publishes(|new| new.spiffe_id.service_account == "other").await;
    assert!(!vm.calls()[1].1);
}

#[tokio::test(start_paused = true)]
async fn new_roots_are_asked_for_while_the_old_ones_serve() {
    let mut vm = Vm::new(24 * HOUR);
    vm.start();
    let old = vm.publishes(|_| true).await;
    vm.ca.down.store(true, Ordering::SeqCst);
    vm.change(|membership| membership.roots_pem = Ca::new("rotated").root_pem());
    sleep(CLOCK_CHECK_INTERVAL).await;
    assert_eq!(vm.published.borrow().as_ref(), Some(&old));
    assert!(vm.calls().len() > 1);
    vm.start();
    assert_eq!(
        vm.publishes(|_| true).await.key,
        old.key,
        "a restart in the middle of it serves it too"
    );
    vm.ca.down.store(false, Ordering::SeqCst);
    vm.publishes(|new| new.key != old.key).await;
    let calls = vm.calls().len();
    sleep(HOUR).await;
    assert_eq!(vm.calls().len(), calls);
}

#[tokio::test(start_paused = true)]
async fn clock_that_jumped_is_noticed_within_a_minute() {
    let vm = Vm::new(24 * HOUR);
    let member = vm.membership.borrow().clone();
    let mut renewal = vm.renewal(Scope::detached().0);
    let start = renewal.clock.now();
    for (now, calls) in [(start, 1), (start + 30 * HOUR, 2), (start - HOUR, 3)] {
        renewal.clock = Clock::starting_at(now);
        *vm.ca.clock.lock().unwrap() = renewal.clock;
        assert_eq!(
            renewal.step(&member).await.unwrap(),
            CLOCK_CHECK_INTERVAL,
            "however far off the renewal is"
        );
        assert_eq!(vm.calls().len(), calls);
    }
}

#[tokio::test(start_paused = true)]
async fn clock_that_is_set_ends_the_wait_between_attempts() {
    let mut vm = Vm::new(24 * HOUR);
    vm.ca.down.store(true, Ordering::SeqCst);
    vm.start();
    sleep(Duration::from_secs(600)).await;
    for change in [
        |host: &mut HostState| host.clock_steps += 1,
        |host: &mut HostState| host.resumes += 1,
    ] {
        let calls = vm.calls().len();
        vm.state.send_modify(change);
        // Time stands still while something is to be done.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert_eq!(vm.calls().len(), calls + 1);
    }
    let calls = vm.calls().len();
    vm.state.send_modify(|host| host.has_default_route = true);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(vm.calls().len(), calls, "the network is no clock");
}

#[tokio::test(start_paused = true)]
async fn renewal_is_ready_with_the_first_certificate_and_with_a_stored_one() {
    let vm = Vm::new(24 * HOUR);
    for down in [false, true] {
        vm.ca.down.store(down, Ordering::SeqCst);
        let membership = vm.membership.subscribe();
        let mut supervisor = Supervisor::default();
        supervisor.spawn("identity", MIN_RENEWAL_INTERVAL, |scope| {
            let renewal = vm.renewal(scope);
            async {
                renewal.run(membership, watch::Sender::default().subscribe()).await;
                Ok(())
            }
        });
        timeout(MIN_RENEWAL_INTERVAL, supervisor.newest_ready())
            .await
            .unwrap()
            .unwrap();
        assert!(vm.published.send_replace(None).is_some());
        supervisor.drain().await;
        // The CA is down, and the bundle's roots are others: what is stored serves all the same.
        vm.change(|membership| membership.roots_pem = Ca::new("rotated").root_pem());
    }
}

#[tokio::test(start_paused = true)]
async fn ca_that_gives_useless_lives_is_not_stormed() {
    let mut vm = Vm::new(Duration::ZERO);
    vm.start();
    sleep(CLOCK_CHECK_INTERVAL).await;
    assert!(vm.calls().len() <= 61, "{}", vm.calls().len());
}

#[tokio::test(start_paused = true)]
async fn certificate_that_cannot_be_stored_is_published() {
    let mut vm = Vm::new(HOUR);
    // A file where the state directory should be.
    vm.host().write("/state".as_ref(), "", 0o600, None).unwrap();
    vm.start();
    vm.publishes(|_| true).await;
    assert_eq!(*vm.problem.borrow(), None);
}
