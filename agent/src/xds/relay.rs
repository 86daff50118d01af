//! One stream of Envoy's, from its start to its end.
//!
//! Until istiod has answered, Envoy's stream is held open, its requests are kept, and istiod is tried again.
//! Once a stream that istiod answered on ends, Envoy's ends too: Envoy keeps its configuration, comes back
//! within about a second and states anew what it has, which a new istiod must be told.

use istio_api::frame::{Form, Frame};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::Context;
use super::upstream::{self, End};
use crate::supervise::reconnect;

/// Envoy's side of a stream.
#[derive(Debug)]
pub(super) struct Downstream {
    pub(super) form: Form,
    pub(super) requests: Streaming<Frame>,
    pub(super) responses: mpsc::Sender<Result<Frame, Status>>,
    /// Requests that no answer of istiod's has followed yet: a new try sends them again.
    pub(super) unanswered: Vec<Frame>,
}

/// Relays until either side ends or `replaced` is cancelled.
pub(super) async fn run(
    context: &Context,
    form: Form,
    requests: Streaming<Frame>,
    responses: mpsc::Sender<Result<Frame, Status>>,
    replaced: CancellationToken,
) {
    context.report.envoy_connected();
    let envoy = responses.clone();
    let downstream = Downstream {
        form,
        requests,
        responses,
        unanswered: Vec::new(),
    };
    let end = tokio::select! {
        biased;
        () = replaced.cancelled() => Status::unavailable("Envoy opened another stream"),
        () = envoy.closed() => Status::cancelled("Envoy closed its stream"),
        end = converse(context, downstream) => end,
    };
    context.report.envoy_disconnected(end.message());
    // Full means that Envoy doesn't read: it sees the end without the reason.
    let _ = envoy.try_send(Err(end));
}

/// Tries each control plane in order until one answers; then relays. Returns what Envoy is told.
async fn converse(context: &Context, mut downstream: Downstream) -> Status {
    let mut backoff = reconnect();
    loop {
        for address in context.addresses() {
            match upstream::attempt(context, &address, &mut downstream).await {
                End::Unanswered(error) => context.report.failed(&error),
                End::Upstream(error) => {
                    context.report.failed(&error);
                    return Status::unavailable(format!("{error:#}"));
                }
                End::Envoy(status) => return status,
            }
        }
        backoff.wait().await;
    }
}

impl Context {
    fn addresses(&self) -> Vec<String> {
        if self.options.addresses.is_empty() {
            return vec![self.inputs.membership.borrow().discovery_address.clone()];
        }
        self.options.addresses.clone()
    }
}
