//! The version of the Envoy that serves, by its own word.

use std::convert::Infallible;
use std::future::pending;

use tokio::sync::watch;

use super::options::Options;
use crate::facts::EnvoyState;

/// Asks each Envoy that comes to serve for its version, and publishes that.
pub(super) async fn follow(
    options: &Options,
    mut state: watch::Receiver<EnvoyState>,
    publish: &watch::Sender<Option<String>>,
) -> Infallible {
    let mut told = None;
    loop {
        let serving = match *state.borrow_and_update() {
            // While another takes over, its admin interface is at the place of this one's.
            EnvoyState::Ready {
                pid, successor: None, ..
            } => Some(pid),
            _ => None,
        };
        if serving.is_some() && serving != told {
            match options.admin().version().await {
                Ok(version) => {
                    publish.send_replace(Some(version));
                    told = serving;
                }
                Err(error) => tracing::debug!("Envoy doesn't say its version: {error:#}"),
            }
        }
        if state.changed().await.is_err() {
            pending::<()>().await;
        }
    }
}
