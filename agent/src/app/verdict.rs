//! Folds all facts into the one verdict, whenever one of them changes.

use std::time::{Duration, SystemTime};

use anyhow::Result;

use super::channels::Channels;
use crate::config::{Backend, Config};
use crate::facts::Health;
use crate::health;
use crate::supervise::Scope;

/// Certificates expire without anything being published.
const TIME_PASSES: Duration = Duration::from_secs(10);

/// The task that publishes `Health`.
pub(super) async fn run(scope: Scope, channels: Channels, config: Config) -> Result<()> {
    let mut credentials = channels.credentials.subscribe();
    let mut identity_problem = channels.identity_problem.subscribe();
    let mut join_problem = channels.join_problem.subscribe();
    let mut names = channels.names.subscribe();
    let mut xds = channels.xds.subscribe();
    let mut envoy = channels.envoy.subscribe();
    let mut envoy_problem = channels.envoy_problem.subscribe();
    let mut intercept = channels.intercept.subscribe();
    let mut container = channels.container.subscribe();
    let mut probe = channels.probe.subscribe();
    let mut time_passes = tokio::time::interval(TIME_PASSES);
    scope.ready();
    loop {
        publish(&channels, fold(&channels, &config));
        tokio::select! {
            biased;
            () = scope.draining() => return Ok(()),
            Ok(()) = credentials.changed() => {}
            Ok(()) = identity_problem.changed() => {}
            Ok(()) = join_problem.changed() => {}
            Ok(()) = names.changed() => {}
            Ok(()) = xds.changed() => {}
            Ok(()) = envoy.changed() => {}
            Ok(()) = envoy_problem.changed() => {}
            Ok(()) = intercept.changed() => {}
            Ok(()) = container.changed() => {}
            Ok(()) = probe.changed() => {}
            _ = time_passes.tick() => {}
        }
    }
}

fn fold(channels: &Channels, config: &Config) -> Health {
    let membership = channels.membership();
    health::aggregate(&health::Facts {
        credentials: channels.credentials.borrow().as_deref(),
        renewal_problem: channels.identity_problem.borrow().as_deref(),
        join_problem: channels.join_problem.borrow().as_deref(),
        names_wanted: membership.dns_capture,
        xds: &channels.xds.borrow(),
        envoy: &channels.envoy.borrow(),
        envoy_problem: channels.envoy_problem.borrow().as_deref(),
        interception_wanted: config.intercept.backend != Backend::None,
        intercept: &channels.intercept.borrow(),
        container: &channels.container.borrow(),
        probe: &channels.probe.borrow(),
        now: SystemTime::now(),
    })
}

fn publish(channels: &Channels, new: Health) {
    channels.health.send_if_modified(|health| {
        if *health == new {
            return false;
        }
        if health.ready != new.ready {
            tracing::info!(ready = new.ready, problems = ?new.problems, "readiness changed");
        }
        *health = new;
        true
    });
}
