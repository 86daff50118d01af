//! When a certificate is renewed, and what is served until it is. The old one is published until the new one is in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use super::ca::Authority;
use super::{Options, certificate, store};
use crate::facts::{Credentials, Membership, date};
use crate::host::Host;
use crate::supervise::{Backoff, Clock, Scope};

/// Part of a certificate's life after which it is renewed, and how far that is spread over a fleet
/// (SECRET_GRACE_PERIOD_RATIO and its JITTER, istio/pilot/cmd/pilot-agent/options).
const RATIO: (f64, f64) = (0.5, 0.01);
/// The clock is looked at this often: it jumps, and machines sleep.
const TICK: Duration = Duration::from_secs(60);
/// Between tries; each wait has up to as much again of jitter, so they end at about a minute.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));
/// Longest wait of a VM whose certificate is about to end, or has: calls fail meanwhile.
const URGENT: Duration = Duration::from_secs(5);
/// Between two good answers, however short the life that the CA gives.
const LEAST: Duration = Duration::from_secs(1);

/// The credentials at hand.
struct Held {
    credentials: Arc<Credentials>,
    /// The bundle's roots that are among the credentials'.
    bundle_roots: String,
    renew_at: SystemTime,
}

impl Held {
    fn new(credentials: Arc<Credentials>, membership: &Membership, start: SystemTime) -> Self {
        Self {
            renew_at: due(start, credentials.not_after, fastrand::f64() * 2.0 - 1.0),
            bundle_roots: membership.roots_pem.clone(),
            credentials,
        }
    }

    fn serves(&self, membership: &Membership, now: SystemTime) -> bool {
        now < self.renew_at
            && self.credentials.valid_at(now)
            && self.credentials.spiffe_id == membership.spiffe_id
            && self.bundle_roots == membership.roots_pem
    }
}

/// When a certificate that is used from `start` on is renewed; `jitter` is from -1 to 1.
fn due(start: SystemTime, not_after: SystemTime, jitter: f64) -> SystemTime {
    let life = not_after.duration_since(start).unwrap_or_default();
    start + life.mul_f64(RATIO.0 + RATIO.1 * jitter).max(LEAST)
}

/// Longest wait before the next try: a VM that never had a certificate may be set up wrongly and has time, one
/// whose certificate is ending has calls to lose.
fn patience(held: Option<&Held>, now: SystemTime) -> Duration {
    let left = held.map(|held| held.credentials.not_after.duration_since(now).unwrap_or_default());
    left.map_or(TICK, |left| (left / 10).clamp(URGENT, TICK))
}

/// Keeps `publish` at a certificate of the membership's identity, for ever.
pub(super) struct Renewal<A> {
    scope: Scope,
    authority: A,
    host: Host,
    path: PathBuf,
    clock: Clock,
    publish: watch::Sender<Option<Arc<Credentials>>>,
    problem: watch::Sender<Option<String>>,
    /// What is published, or was before it ended.
    held: Option<Held>,
    /// What was stored and is no longer valid; its roots still tell istiod from a stranger.
    last: Option<Credentials>,
}

impl<A: Authority> Renewal<A> {
    pub(super) fn new(
        scope: Scope,
        options: Options,
        authority: A,
        publish: watch::Sender<Option<Arc<Credentials>>>,
    ) -> Self {
        Self {
            scope,
            authority,
            host: options.host,
            path: options.store,
            clock: options.clock,
            publish,
            problem: options.problem,
            held: None,
            last: None,
        }
    }

    pub(super) async fn run(mut self, mut membership: watch::Receiver<Arc<Membership>>) {
        let first = membership.borrow_and_update().clone();
        self.restore(&first).await;
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let member = membership.borrow_and_update().clone();
            let wait = match self.step(&member).await {
                Ok(wait) => {
                    backoff.reset();
                    wait
                }
                Err(error) => {
                    let longest = patience(self.held.as_ref(), self.clock.now());
                    let wait = backoff.next_wait().min(longest.mul_f64(0.5 + fastrand::f64() / 2.0));
                    tracing::warn!(retry_in = ?wait, "failed to get a certificate: {error:#}");
                    self.problem.send_replace(Some(format!("{error:#}")));
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                Ok(()) = membership.changed() => backoff.reset(),
            }
        }
    }

    /// Publishes what an earlier run stored, when it still serves.
    async fn restore(&mut self, membership: &Membership) {
        let stored = match store::load(&self.host, &self.path) {
            Ok(Some(stored)) => stored,
            Ok(None) => return,
            Err(error) => return tracing::warn!("the stored certificate is replaced: {error:#}"),
        };
        if let Err(error) = store::mark(&self.host, &self.path) {
            tracing::warn!("failed to mark the stored certificate as this machine's: {error:#}");
        }
        let now = self.clock.now();
        if let Some(reason) = unfit(&stored, membership, now) {
            tracing::info!("the stored certificate is replaced: {reason}");
            self.last = Some(stored);
            return;
        }
        let start = stored.not_before;
        let mut held = Held::new(Arc::new(stored), membership, start);
        if !certificate::contains(&held.credentials.roots_pem, &membership.roots_pem) {
            // Served meanwhile: peers may know the old root only.
            held.bundle_roots.clear();
        }
        self.publish("took up the stored certificate", held);
    }

    /// Renews when that is due, and says how long nothing is to be done.
    async fn step(&mut self, membership: &Membership) -> Result<Duration> {
        if !self
            .held
            .as_ref()
            .is_some_and(|held| held.serves(membership, self.clock.now()))
        {
            let credentials = Arc::new(self.authority.issue(membership, self.current(membership)).await?);
            let held = Held::new(Arc::clone(&credentials), membership, self.clock.now());
            // Before it is stored: a disk that hangs must not keep it from Envoy.
            self.publish("got a certificate", held);
            self.save(credentials).await;
        }
        self.problem.send_if_modified(|problem| problem.take().is_some());
        let left = self
            .held
            .as_ref()
            .and_then(|held| held.renew_at.duration_since(self.clock.now()).ok());
        Ok(left.unwrap_or_default().clamp(LEAST, TICK))
    }

    /// What the CA may be shown. A certificate of another identity would be renewed as that.
    fn current(&self, membership: &Membership) -> Option<&Credentials> {
        let held = self.held.as_ref().map(|held| &*held.credentials);
        held.or(self.last.as_ref())
            .filter(|current| current.spiffe_id == membership.spiffe_id)
    }

    fn publish(&mut self, event: &'static str, held: Held) {
        let credentials = &held.credentials;
        tracing::info!(
            identity = %credentials.spiffe_id,
            serial = credentials.serial,
            expires = %date(credentials.not_after),
            renewal = %date(held.renew_at),
            "{event}"
        );
        self.publish.send_replace(Some(Arc::clone(credentials)));
        self.held = Some(held);
        self.scope.ready();
    }

    /// A certificate that can't be stored still serves until the next start.
    async fn save(&self, credentials: Arc<Credentials>) {
        let (host, path) = (self.host.clone(), self.path.clone());
        let saved = tokio::task::spawn_blocking(move || store::save(&host, &path, &credentials)).await;
        if let Err(error) = saved.map_err(anyhow::Error::from).flatten() {
            tracing::error!("failed to store the certificate, a restart will ask for another: {error:#}");
        }
    }
}

/// Why stored credentials can't be published.
fn unfit(stored: &Credentials, membership: &Membership, now: SystemTime) -> Option<String> {
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
