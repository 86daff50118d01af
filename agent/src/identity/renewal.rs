//! The renewal of the certificate. The old one is published until the new one is in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::ca::{CertificateIssuer, Unreachable};
use super::{Options, certificate, store};
use crate::facts::{Credentials, HostEvent, HostState, IdentityProblem, Membership, date};
use crate::host::Host;
use crate::supervise::{Backoff, Clock, Scope};

/// Part of a certificate's life after which it is renewed (SECRET_GRACE_PERIOD_RATIO,
/// istio/pilot/cmd/pilot-agent/options).
const GRACE_PERIOD_RATIO: f64 = 0.5;
/// Part of a certificate's life by which renewals are spread over a fleet, both ways
/// (SECRET_GRACE_PERIOD_RATIO_JITTER, istio/pilot/cmd/pilot-agent/options).
const GRACE_PERIOD_RATIO_JITTER: f64 = 0.01;
/// Longest time between two looks at the clock: it jumps, and machines sleep.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(60);
/// First wait between attempts.
const MIN_RETRY_WAIT: Duration = Duration::from_millis(100);
/// Longest wait between attempts; each has up to as much again of jitter, so they end at about a minute.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(30);
/// Longest wait between attempts of a VM whose certificate is about to end, or has: calls fail meanwhile.
const MAX_WAIT_WHEN_EXPIRING: Duration = Duration::from_secs(5);
/// Shortest time between two good answers, however short the life that the CA gives.
const MIN_RENEWAL_INTERVAL: Duration = Duration::from_secs(1);

/// The credentials at hand, and when they are renewed.
struct Certificate {
    credentials: Arc<Credentials>,
    /// The bundle's roots that are among the credentials'.
    bundle_roots: String,
    renew_at: SystemTime,
}

impl Certificate {
    /// A certificate in use since `start`. A CA may give more than the `ttl` that was asked for: such a one is renewed as if
    /// it had not, or a key would serve for as long as the CA likes.
    fn new(credentials: Arc<Credentials>, membership: &Membership, start: SystemTime, ttl: Duration) -> Self {
        let wanted = start.checked_add(ttl).unwrap_or(credentials.not_after);
        let end = credentials.not_after.min(wanted);
        Self {
            renew_at: renewal_time(start, end, fastrand::f64() * 2.0 - 1.0),
            bundle_roots: membership.roots_pem.clone(),
            credentials,
        }
    }

    fn is_current(&self, membership: &Membership, now: SystemTime) -> bool {
        now < self.renew_at
            && self.credentials.valid_at(now)
            && self.credentials.spiffe_id == membership.spiffe_id
            && self.bundle_roots == membership.roots_pem
    }
}

/// The time at which a certificate that is used from `start` on is renewed; `jitter` is from -1 to 1.
fn renewal_time(start: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let life = not_after.duration_since(start).unwrap_or_default();
    start
        + life
            .mul_f64(GRACE_PERIOD_RATIO + GRACE_PERIOD_RATIO_JITTER * jitter)
            .max(MIN_RENEWAL_INTERVAL)
}

/// Longest wait before the next attempt: a VM that never had a certificate may be set up wrongly and has time, one
/// whose certificate is ending has calls to lose.
fn max_retry_wait(current: Option<&Certificate>, now: SystemTime) -> Duration {
    let left = current.map(|current| current.credentials.not_after.duration_since(now).unwrap_or_default());
    left.map_or(CLOCK_CHECK_INTERVAL, |left| {
        (left / 10).clamp(MAX_WAIT_WHEN_EXPIRING, CLOCK_CHECK_INTERVAL)
    })
}

/// Keeps `publish` at a certificate of the membership's identity, for ever.
pub(super) struct Renewal<A> {
    scope: Scope,
    issuer: A,
    host: Host,
    path: PathBuf,
    ttl: Duration,
    clock: Clock,
    publish: watch::Sender<Option<Arc<Credentials>>>,
    problem: watch::Sender<Option<IdentityProblem>>,
    /// Published, even past its end.
    current: Option<Certificate>,
    /// Stored by an earlier run and of no use now, but for its roots, which still tell istiod from a stranger.
    expired: Option<Credentials>,
}

impl<A: CertificateIssuer> Renewal<A> {
    pub(super) fn new(
        scope: Scope,
        options: Options,
        issuer: A,
        publish: watch::Sender<Option<Arc<Credentials>>>,
    ) -> Self {
        Self {
            scope,
            issuer,
            host: options.host,
            path: options.store,
            ttl: options.config.ttl,
            clock: options.clock,
            publish,
            problem: options.problem,
            current: None,
            expired: None,
        }
    }

    pub(super) async fn run(
        mut self,
        mut membership: watch::Receiver<Arc<Membership>>,
        mut host: watch::Receiver<HostState>,
    ) {
        let first = membership.borrow_and_update().clone();
        self.restore(&first).await;
        let mut clock = changes_of_clock(&host.borrow());
        let mut backoff = Backoff::new(MIN_RETRY_WAIT, MAX_RETRY_WAIT);
        loop {
            let member = membership.borrow_and_update().clone();
            let wait = match self.step(&member).await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(error) => {
                    let longest = max_retry_wait(self.current.as_ref(), self.clock.now());
                    let wait = backoff.next_wait().min(longest.mul_f64(0.5 + fastrand::f64() / 2.0));
                    tracing::warn!(retry_in = ?wait, "failed to get a certificate: {error:#}");
                    self.problem.send_replace(Some(IdentityProblem {
                        text: format!("{error:#}"),
                        is_unreachable: error.is::<Unreachable>(),
                    }));
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                Ok(()) = membership.changed() => backoff.reset(),
                () = clock_changed(&mut host, &mut clock) => backoff.reset(),
            }
        }
    }

    /// Publishes the certificate that an earlier run stored, when it is still valid.
    async fn restore(&mut self, membership: &Membership) {
        let stored = match store::load(&self.host, &self.path) {
            Ok(Some(stored)) => stored,
            Ok(None) => return,
            Err(error) => {
                let is_foreign = error.is::<store::OfAnotherMachine>();
                let code = is_foreign.then(|| HostEvent::MachineChanged.code());
                return tracing::warn!(code, "the stored certificate is replaced: {error:#}");
            }
        };
        if let Err(error) = store::mark(&self.host, &self.path) {
            tracing::warn!("failed to mark the stored certificate as this machine's: {error:#}");
        }
        let now = self.clock.now();
        if let Some(reason) = why_unusable(&stored, membership, now) {
            let code = (now >= stored.not_after).then(|| HostEvent::CertificateExpired.code());
            tracing::info!(code, "the stored certificate is replaced: {reason}");
            self.expired = Some(stored);
            return;
        }
        let start = stored.not_before;
        let mut current = Certificate::new(Arc::new(stored), membership, start, self.ttl);
        if !certificate::contains(&current.credentials.roots_pem, &membership.roots_pem) {
            // Served meanwhile: peers may know the old root only.
            current.bundle_roots.clear();
        }
        self.publish("took up the stored certificate", current);
    }

    /// Renews when that is due, and says how long nothing is to be done.
    async fn step(&mut self, membership: &Membership) -> Result<Duration> {
        if !self
            .current
            .as_ref()
            .is_some_and(|current| current.is_current(membership, self.clock.now()))
        {
            let credentials = Arc::new(self.issuer.issue(membership, self.to_renew(membership)).await?);
            let now = self.clock.now();
            self.warn_of_a_long_life(&credentials, now);
            let current = Certificate::new(Arc::clone(&credentials), membership, now, self.ttl);
            // Before it is stored: a disk that hangs must not keep it from Envoy.
            self.publish("got a certificate", current);
            self.save(credentials).await;
        }
        self.problem.send_if_modified(|problem| problem.take().is_some());
        let left = self
            .current
            .as_ref()
            .and_then(|current| current.renew_at.duration_since(self.clock.now()).ok());
        Ok(left
            .unwrap_or_default()
            .clamp(MIN_RENEWAL_INTERVAL, CLOCK_CHECK_INTERVAL))
    }

    fn warn_of_a_long_life(&self, credentials: &Credentials, now: SystemTime) {
        let life = credentials.not_after.duration_since(now).unwrap_or_default();
        if life / 2 > self.ttl {
            tracing::warn!(
                expires = %date(credentials.not_after),
                asked_for = ?self.ttl,
                "the CA gave a certificate for much longer than was asked for; it is renewed as if it were for what was asked for, but who \
                 steals its key has it until then: see to the CA's MAX_WORKLOAD_CERT_TTL"
            );
        }
    }

    /// The certificate that the CA may be shown. One of another identity would be renewed as that.
    fn to_renew(&self, membership: &Membership) -> Option<&Credentials> {
        let current = self.current.as_ref().map(|current| &*current.credentials);
        current
            .or(self.expired.as_ref())
            .filter(|current| current.spiffe_id == membership.spiffe_id)
    }

    fn publish(&mut self, event: &'static str, current: Certificate) {
        let credentials = &current.credentials;
        tracing::info!(
            identity = %credentials.spiffe_id,
            serial = credentials.serial,
            expires = %date(credentials.not_after),
            renewal = %date(current.renew_at),
            "{event}"
        );
        self.publish.send_replace(Some(Arc::clone(credentials)));
        self.current = Some(current);
        self.scope.ready();
    }

    /// A certificate that can't be stored still serves until the next start.
    async fn save(&self, credentials: Arc<Credentials>) {
        let path = self.path.clone();
        let saved = self.host.blocking(move |host| store::save(host, &path, &credentials));
        if let Err(error) = saved.await {
            tracing::error!("failed to store the certificate, a restart will ask for another: {error:#}");
        }
    }
}

fn changes_of_clock(host: &HostState) -> (u64, u64) {
    (host.clock_steps, host.resumes)
}

/// Completes when the wall clock was set, or the machine has slept, since `known`: what was due in an hour may be over.
async fn clock_changed(host: &mut watch::Receiver<HostState>, known: &mut (u64, u64)) {
    let now = host.wait_for(|host| changes_of_clock(host) != *known).await;
    let Some(now) = now.ok().map(|host| changes_of_clock(&host)) else {
        return std::future::pending().await;
    };
    *known = now;
}

/// The reason why stored credentials can't be published.
fn why_unusable(stored: &Credentials, membership: &Membership, now: SystemTime) -> Option<String> {
    if stored.spiffe_id != membership.spiffe_id {
        return Some(format!(
            "it is for {}, this VM is {}",
            stored.spiffe_id, membership.spiffe_id
        ));
    }
    (!stored.valid_at(now)).then(|| {
        format!(
            "it is valid from {} to {}, and the clock says {}",
            date(stored.not_before),
            date(stored.not_after),
            date(now)
        )
    })
}

#[cfg(test)]
mod tests;
