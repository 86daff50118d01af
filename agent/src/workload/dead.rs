//! The word of the application's probes that it is dead.

use std::future::pending;

use tokio::sync::watch;

use crate::facts::LivenessState;

/// Waits until a probe fails for good, from the last state that was seen on, and returns why.
pub(super) async fn dead(liveness: &mut watch::Receiver<LivenessState>) -> String {
    while liveness.changed().await.is_ok() {
        if let LivenessState::Failed { reason } = &*liveness.borrow_and_update() {
            return reason.clone();
        }
    }
    // The probes' task is gone, and so is the agent soon.
    pending().await
}
