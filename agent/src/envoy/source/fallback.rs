//! The way back from a fetched Envoy that doesn't serve. While the VM is up, the Envoy before it serves on beside it; after
//! a reboot that one is no more than a kept program.

use tokio::sync::watch;

use crate::facts::EnvoyState;

/// The number of times that an Envoy may end before it has served once.
const MAX_FAILURES: u32 = 3;

/// Completes with the last words of an Envoy that never serves; not at all once one does.
pub(super) async fn never_serves(mut state: watch::Receiver<EnvoyState>) -> String {
    let mut failures = 0;
    while state.changed().await.is_ok() {
        match &*state.borrow_and_update() {
            EnvoyState::Ready { successor: None, .. } => break,
            EnvoyState::Down { reason } => {
                failures += 1;
                if failures == MAX_FAILURES {
                    return reason.clone();
                }
            }
            _ => {}
        }
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn envoy_that_has_served_is_never_given_up() {
        let ready = EnvoyState::Ready {
            pid: 7,
            adopted: false,
            restarts: 0,
            successor: None,
        };
        let state = watch::Sender::default();
        let mut given_up = Box::pin(never_serves(state.subscribe()));
        let down = |number: u32| EnvoyState::Down {
            reason: number.to_string(),
        };
        for next in [down(1), down(2), ready, down(3), down(4), down(5)] {
            state.send_replace(next);
            assert_eq!(given_up.as_mut().now_or_never(), None);
        }
    }
}
