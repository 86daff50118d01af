//! The readiness of the newest Envoy: asked of its admin interface, and published.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::envoy::options::Options;
use crate::envoy::state::EnvoyStatePublisher;

/// The first pause between two questions to a starting Envoy, which grows by a fiftieth each time. An answer costs
/// Envoy less than a millisecond, and each one that comes late is lost to the start.
const MIN_STARTING_POLL: Duration = Duration::from_millis(3);
/// The longest pause between two questions to a starting Envoy.
const MAX_STARTING_POLL: Duration = Duration::from_millis(500);
/// The pause between two questions to an Envoy that is ready.
const READY_POLL: Duration = Duration::from_secs(5);
/// The silence after which an admin interface is stuck, not slow.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(30);

/// The Envoy that is published once it is ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Incarnation {
    pub(super) pid: u32,
    /// True when an earlier agent started it.
    pub(super) adopted: bool,
    /// The number of times that this agent started Envoy again.
    pub(super) restarts: u32,
}

/// Asks the newest Envoy over and over and publishes how it is; calls `first_ready` once, when it is ready for the
/// first time.
pub(super) async fn follow(
    options: &Options,
    state: &EnvoyStatePublisher,
    envoy: Incarnation,
    first_ready: impl FnOnce(),
) -> Infallible {
    let admin = options.admin();
    state.starting(envoy.pid, None);
    let mut poll = MIN_STARTING_POLL;
    let (mut first_ready, mut heard) = (Some(first_ready), Instant::now());
    loop {
        match admin.readiness().await {
            Ok(readiness) => {
                heard = Instant::now();
                match readiness.lacks() {
                    Some(lacks) if first_ready.is_some() => state.starting(envoy.pid, Some(lacks)),
                    // As in Istio, once is for ever: a later update that Envoy refuses does not stop it serving.
                    _ => serves(state, envoy),
                }
                if let Some(first_ready) = first_ready.take_if(|_| readiness.is_ready()) {
                    first_ready();
                    poll = READY_POLL;
                }
            }
            Err(error) if heard.elapsed() >= SILENCE_TIMEOUT => report_stuck(state, envoy.pid, heard.elapsed(), &error),
            Err(_) => {}
        }
        sleep(poll).await;
        poll = (poll * 51 / 50).min(MAX_STARTING_POLL.max(poll));
    }
}

fn serves(state: &EnvoyStatePublisher, Incarnation { pid, adopted, restarts }: Incarnation) {
    if state.ready(pid, adopted, restarts) {
        tracing::info!(pid, "Envoy is ready");
    }
}

/// Publishes that Envoy is stuck. It is not killed: its workers may well serve on.
fn report_stuck(state: &EnvoyStatePublisher, pid: u32, silence: Duration, error: &anyhow::Error) {
    let reason = format!(
        "runs, and its admin interface does not answer: `kill -ABRT {pid}` has it started again, with a trace in the log"
    );
    if state.down(Some(pid), reason) {
        tracing::error!(
            pid,
            "Envoy runs and has not answered for {} s: {error:#}",
            silence.as_secs()
        );
    }
}
