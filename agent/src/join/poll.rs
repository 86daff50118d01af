//! Waits between looks at a source, spread over a fleet.

use std::time::Duration;

use tokio::time::sleep;

/// Waits for the next look: `every`, with jitter.
pub(super) async fn poll(every: Duration) {
    sleep(jittered(every)).await;
}

/// Three quarters to five quarters of `time`.
pub(super) fn jittered(time: Duration) -> Duration {
    time.mul_f64(0.75 + fastrand::f64() / 2.0)
}
