//! Applications that a reload has no more.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::part::WorkloadChannels;

/// Ends these beside each other, each within its time, and waits until its state says so.
pub(super) async fn end_each<T: Default + PartialEq>(
    gone: Vec<(&WorkloadChannels, Duration)>,
    state: impl Fn(&WorkloadChannels) -> watch::Receiver<T>,
) {
    let ended = gone.into_iter().map(|(channels, longest)| {
        let mut state = state(channels);
        async move {
            channels.gone.cancel();
            let is_over = state.wait_for(|state| *state == T::default());
            if timeout(longest, is_over).await.is_err() {
                tracing::warn!(
                    workload = channels.name,
                    "what is configured no more has not ended within {longest:?}"
                );
            }
        }
    });
    join_all(ended).await;
}
