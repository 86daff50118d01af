//! The drain: Envoy's callers leave before it is ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::config::EnvoyConfig;
use crate::envoy::admin::{Admin, Load};
use crate::envoy::options::Options;
use crate::envoy::process::{DEFAULT_DRAIN_DURATION, EnvoyProcess, ledger};
use crate::envoy::state::EnvoyStatePublisher;
use crate::facts::{EnvoyState, Membership};
use crate::supervise::Scope;

/// The drain of idle connections when ProxyConfig has no `terminationDrainDuration` (istio/pkg/config/mesh/mesh.go).
const DEFAULT_TERMINATION_DRAIN_DURATION: Duration = Duration::from_secs(5);
/// The pause between two looks at what is under way in Envoy.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The time beyond the longest drain for an answer of the admin interface that is late.
const ADMIN_SLACK: Duration = Duration::from_secs(3);

/// Waits for the agent's drain, then has the callers of Envoy leave, and those of one that it takes over from, and
/// waits until they have left or have had their time, or `hastened` says that there is none. Tasks are drained newest first: spawn this one after all that the
/// callers' requests still need.
pub async fn drain(
    scope: Scope,
    options: Options,
    membership: watch::Receiver<Arc<Membership>>,
    state: watch::Sender<EnvoyState>,
    mut hastened: watch::Receiver<bool>,
) -> Result<()> {
    scope.ready();
    scope.draining().await;
    // Two, while one takes over from the other: either may have callers.
    let envoys = EnvoyProcess::all(&options.host, &options.paths);
    let Some(newest) = envoys.first() else {
        return Ok(());
    };
    EnvoyStatePublisher::new(options.clone(), state).draining(newest.pid());
    if let Err(error) = ledger::record_drained(&options.host, &options.paths) {
        tracing::warn!("should this agent be killed, the next one takes Envoy for one that serves: {error:#}");
    }
    let membership = membership.borrow().clone();
    let drained = join_all(envoys.iter().map(|envoy| drain_inbound(envoy, &options, &membership)));
    tokio::select! {
        biased;
        Ok(_) = hastened.wait_for(|hastened| *hastened) => tracing::warn!("Envoy ends before its callers have left"),
        _ = drained => {}
    }
    Ok(())
}

/// The longest time that `drain` takes.
pub fn drain_grace(config: &EnvoyConfig, membership: &Membership) -> Duration {
    DrainLimits::of(config, membership).longest + ADMIN_SLACK
}

/// The time that Envoy's callers are given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct DrainLimits {
    /// The time for idle connections.
    idle: Duration,
    /// The time for requests that are under way; never less than `idle`.
    longest: Duration,
}

impl DrainLimits {
    /// Takes `envoy.drain`, or the mesh's times where the operator configured none.
    pub(super) fn of(config: &EnvoyConfig, membership: &Membership) -> Self {
        let mesh = &membership.proxy_config;
        let idle = config.drain.or_else(|| mesh.duration("terminationDrainDuration"));
        let idle = idle.unwrap_or(DEFAULT_TERMINATION_DRAIN_DURATION);
        let longest = config.drain.or_else(|| mesh.duration("drainDuration"));
        Self {
            idle,
            longest: longest.unwrap_or(DEFAULT_DRAIN_DURATION).max(idle),
        }
    }

    /// The reason why a drain that has taken `elapsed` is over; `None` while it goes on. `load` is `None` when Envoy
    /// does not answer.
    fn why_over(&self, load: Option<Load>, elapsed: Duration) -> Option<&'static str> {
        match load {
            Some(load) if load == Load::default() => Some("no connection is left"),
            Some(load) if load.requests == 0 && elapsed >= self.idle => Some("only idle connections are left"),
            None if elapsed >= self.idle => Some("Envoy does not say what is left"),
            _ if elapsed >= self.longest => Some("requests are left and have had their time"),
            _ => None,
        }
    }
}

/// Has Envoy's callers leave, and waits for them. An Envoy that can't be asked to is left as it is.
async fn drain_inbound(envoy: &EnvoyProcess, options: &Options, membership: &Membership) {
    let asked = async {
        let admin = envoy.admin(&options.host, &options.paths).await?;
        admin.drain_inbound().await?;
        Ok(admin)
    };
    wait_until_drained(envoy, asked.await, DrainLimits::of(&options.config, membership)).await;
}

/// Drains an Envoy whose ports another one listens on: it accepts no more, its callers leave and are waited for.
pub(super) async fn drain_handed_over(envoy: &EnvoyProcess, options: &Options, membership: &Membership) {
    let asked = async {
        let admin = envoy.admin(&options.host, &options.paths).await?;
        admin.hand_over().await?;
        Ok(admin)
    };
    wait_until_drained(envoy, asked.await, DrainLimits::of(&options.config, membership)).await;
}

async fn wait_until_drained(envoy: &EnvoyProcess, asked: Result<Admin>, limits: DrainLimits) {
    let pid = envoy.pid();
    let admin = match asked {
        Ok(admin) => admin,
        Err(error) => {
            tracing::warn!(pid, "Envoy ends without a drain: {error:#}");
            return;
        }
    };
    let started = Instant::now();
    tracing::info!(pid, "draining Envoy");
    while envoy.is_live() {
        let load = admin.load().await.ok();
        let why_over = limits.why_over(load, started.elapsed());
        let Load {
            inbound_connections: connections,
            requests,
        } = load.unwrap_or_default();
        if let Some(why) = why_over {
            tracing::info!(pid, connections, requests, "drained Envoy: {why}");
            return;
        }
        tracing::debug!(pid, connections, requests, "still draining Envoy");
        sleep(POLL_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::bootstrap::tests::membership;

    const SECOND: Duration = Duration::from_secs(1);

    fn load(inbound_connections: u64, requests: u64) -> Option<Load> {
        Some(Load {
            inbound_connections,
            requests,
        })
    }

    #[test]
    fn drain_limits_are_the_meshs_unless_the_operator_has_one() {
        let mut config = EnvoyConfig::default();
        let limits = DrainLimits::of(&config, &membership());
        assert_eq!((limits.idle, limits.longest), (5 * SECOND, 45 * SECOND));
        config.drain = Some(2 * SECOND);
        let limits = DrainLimits::of(&config, &membership());
        assert_eq!((limits.idle, limits.longest), (2 * SECOND, 2 * SECOND));
        assert_eq!(drain_grace(&config, &membership()), 5 * SECOND);
    }

    #[test]
    fn drain_gives_idle_connections_the_short_time_and_requests_the_long_one() {
        let limits = DrainLimits {
            idle: 5 * SECOND,
            longest: 45 * SECOND,
        };
        let over = |load, seconds: u32| limits.why_over(load, seconds * SECOND).is_some();
        assert!(over(load(0, 0), 0));
        assert!(!over(load(1, 0), 4) && over(load(1, 0), 5));
        assert!(!over(load(1, 1), 44) && over(load(1, 1), 45));
        // A request of the VM's own application is under way.
        assert!(!over(load(0, 1), 10));
        assert!(!over(None, 4) && over(None, 5));
    }
}
