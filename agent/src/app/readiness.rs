//! Folds the problems of all parts into the one verdict, whenever one of them may have changed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Result;
use futures_util::StreamExt;
use futures_util::stream::select_all;
use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::timeline;
use crate::facts::Health;
use crate::health;
use crate::part::{Context, Part};
use crate::supervise::Scope;

/// Period of the look that needs no change: certificates expire without anything being published.
const PERIOD: Duration = Duration::from_secs(10);

/// Publishes `Health` until the drain.
pub(super) async fn run(
    scope: Scope,
    context: Arc<Context>,
    parts: Arc<[Box<dyn Part>]>,
    began: Instant,
) -> Result<()> {
    let mut changes = select_all(parts.iter().flat_map(|part| part.changes(&context.channels)));
    let mut period = interval(PERIOD);
    scope.ready();
    loop {
        let now = SystemTime::now();
        let problems = parts.iter().map(|part| part.problems(&context, now));
        let health = health::aggregate(problems);
        timeline::note(&context.channels, began.elapsed(), health.ready);
        publish(&context.channels.health, health);
        tokio::select! {
            biased;
            () = scope.draining() => return Ok(()),
            Some(()) = changes.next() => {}
            _ = period.tick() => {}
        }
    }
}

fn publish(health: &watch::Sender<Health>, new: Health) {
    health.send_if_modified(|health| {
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
