//! Emptying Envoy of its callers before it is ended.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::config::EnvoyConfig;
use crate::envoy::admin::{Admin, Load};
use crate::envoy::options::Options;
use crate::envoy::process::{DRAIN, Running};
use crate::envoy::state::publish;
use crate::facts::{EnvoyState, Membership};
use crate::supervise::Scope;

/// ProxyConfig's `terminationDrainDuration` when it has none (istio/pkg/config/mesh/mesh.go).
const TERMINATION_DRAIN: Duration = Duration::from_secs(5);
/// How often Envoy is asked what is under way.
const POLL: Duration = Duration::from_millis(100);
/// What the drain may take beyond its longest time: an answer of the admin interface that is late.
const SLACK: Duration = Duration::from_secs(3);

/// Empties Envoy when drained, and one that it takes over from: has their callers leave, then waits until they have, or
/// until they have had their time. Spawn it after all that must still be there meanwhile; it is drained first then.
pub async fn drain(
    scope: Scope,
    options: Options,
    membership: watch::Receiver<Arc<Membership>>,
    state: watch::Sender<EnvoyState>,
) -> Result<()> {
    scope.ready();
    scope.draining().await;
    // Two, while one takes over from the other: either may have callers.
    let envoys = Running::all(&options.host, &options.paths);
    let Some(newest) = envoys.first() else {
        return Ok(());
    };
    let pid = match *state.borrow() {
        EnvoyState::Starting { pid } | EnvoyState::Ready { pid, .. } => pid,
        _ => newest.pid(),
    };
    publish(&state, EnvoyState::Draining { pid });
    let membership = membership.borrow().clone();
    join_all(envoys.iter().map(|envoy| empty(envoy, &options, &membership))).await;
    Ok(())
}

/// The longest that `drain` takes.
pub fn drain_grace(config: &EnvoyConfig, membership: &Membership) -> Duration {
    Limits::of(config, membership).longest + SLACK
}

/// How long Envoy's callers are given.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Limits {
    /// Idle connections.
    idle: Duration,
    /// Requests under way.
    longest: Duration,
}

impl Limits {
    /// `envoy.drain`, or what the mesh says.
    pub(super) fn of(config: &EnvoyConfig, membership: &Membership) -> Self {
        let mesh = &membership.proxy_config;
        let idle = config.drain.or_else(|| mesh.duration("terminationDrainDuration"));
        let idle = idle.unwrap_or(TERMINATION_DRAIN);
        let longest = config.drain.or_else(|| mesh.duration("drainDuration"));
        Self {
            idle,
            longest: longest.unwrap_or(DRAIN).max(idle),
        }
    }

    /// Why the drain is over by now, if it is.
    fn verdict(&self, load: Option<Load>, elapsed: Duration) -> Option<&'static str> {
        match load {
            Some(load) if load == Load::default() => Some("no connection is left"),
            Some(load) if load.requests == 0 && elapsed >= self.idle => Some("only idle connections are left"),
            None if elapsed >= self.idle => Some("Envoy does not say what is left"),
            _ if elapsed >= self.longest => Some("requests are left and have had their time"),
            _ => None,
        }
    }
}

/// Has Envoy's callers leave, and waits for them. One that can't be told to is left as it is.
async fn empty(envoy: &Running, options: &Options, membership: &Membership) {
    let told = async {
        let admin = envoy.admin(&options.host, &options.paths).await?;
        admin.drain_inbound().await?;
        Ok(admin)
    };
    emptied(envoy, told.await, Limits::of(&options.config, membership)).await;
}

/// The same of an Envoy whose ports another one listens on.
pub(super) async fn hand_over(envoy: &Running, options: &Options, membership: &Membership) {
    let told = async {
        let admin = envoy.admin(&options.host, &options.paths).await?;
        admin.hand_over().await?;
        Ok(admin)
    };
    emptied(envoy, told.await, Limits::of(&options.config, membership)).await;
}

async fn emptied(envoy: &Running, told: Result<Admin>, limits: Limits) {
    let pid = envoy.pid();
    let admin = match told {
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
        let verdict = limits.verdict(load, started.elapsed());
        let Load {
            inbound_connections: connections,
            requests,
        } = load.unwrap_or_default();
        if let Some(why) = verdict {
            tracing::info!(pid, connections, requests, "drained Envoy: {why}");
            return;
        }
        tracing::debug!(pid, connections, requests, "still draining Envoy");
        sleep(POLL).await;
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
    fn the_mesh_s_times_hold_unless_the_operator_has_one() {
        let mut config = EnvoyConfig::default();
        let limits = Limits::of(&config, &membership());
        assert_eq!((limits.idle, limits.longest), (5 * SECOND, 45 * SECOND));
        config.drain = Some(2 * SECOND);
        let limits = Limits::of(&config, &membership());
        assert_eq!((limits.idle, limits.longest), (2 * SECOND, 2 * SECOND));
        assert_eq!(drain_grace(&config, &membership()), 5 * SECOND);
    }

    #[test]
    fn idle_connections_have_the_short_time_and_requests_the_long_one() {
        let limits = Limits {
            idle: 5 * SECOND,
            longest: 45 * SECOND,
        };
        let over = |load, seconds: u32| limits.verdict(load, seconds * SECOND).is_some();
        assert!(over(load(0, 0), 0));
        assert!(!over(load(1, 0), 4) && over(load(1, 0), 5));
        assert!(!over(load(1, 1), 44) && over(load(1, 1), 45));
        // A request of the VM's own application is under way.
        assert!(!over(load(0, 1), 10));
        assert!(!over(None, 4) && over(None, 5));
    }
}
