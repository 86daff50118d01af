//! The ADS service on the unix socket: takes Envoy's streams, one at a time.

use std::sync::{Arc, Weak};

use anyhow::{Context as _, Result};
use istio_api::frame::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use istio_api::frame::{Frame, XdsProtocol};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::UdsConnectInfo;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, own_stream, relay};
use crate::host::{Audience, connections_of};
use crate::supervise::{Scope, start_time};

/// Largest request of Envoy's, in bytes. The first one names each resource that it has, with its version: some 40,000.
const MAX_REQUEST: usize = 4 << 20;
/// Most connections: each of Envoy's streams has one of its own, and there may be two Envoys.
const MAX_CONNECTIONS: usize = 16;
/// Most streams of one connection.
const MAX_STREAMS: u32 = 4;

/// Serves until the drain.
pub(super) async fn serve(scope: Scope, listener: UnixListener, context: Arc<Context>) -> Result<()> {
    let audience = Audience {
        users: vec![context.options.owner.uid],
        most: MAX_CONNECTIONS,
        refusals: context.options.refusals.clone(),
    };
    let connections = connections_of(audience, listener);
    let service = Service {
        scope: scope.clone(),
        context,
        newest: Mutex::default(),
        turn: Arc::default(),
    };
    let server = tonic::transport::Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST))
        .serve_with_incoming_shutdown(connections, scope.draining());
    scope.ready();
    server.await.context("failed to serve Envoy's configuration")
}

struct Service {
    scope: Scope,
    context: Arc<Context>,
    newest: Mutex<Newest>,
    /// Held by the one stream that is relayed.
    turn: Arc<Mutex<()>>,
}

/// The newest stream, of the newest Envoy.
#[derive(Default)]
struct Newest {
    /// Ends it.
    replaced: CancellationToken,
    /// Gone when it has ended.
    open: Weak<()>,
    /// Start of its Envoy, in clock ticks after boot.
    started: u64,
}

impl Newest {
    /// Has a stream of an Envoy that started then take this one's place: istiod must see one stream per VM. Of two of one
    /// Envoy the older is a broken connection; of two Envoys the younger takes over from the other. `None` when it is
    /// the other that asks.
    fn give_way(&mut self, started: u64) -> Option<(CancellationToken, Arc<()>)> {
        if started < self.started && self.open.upgrade().is_some() {
            return None;
        }
        let (replaced, open) = (CancellationToken::new(), Arc::new(()));
        self.replaced.cancel();
        *self = Self {
            replaced: replaced.clone(),
            open: Arc::downgrade(&open),
            started,
        };
        Some((replaced, open))
    }
}

type Responses = ReceiverStream<Result<Frame, Status>>;

impl Service {
    async fn open(
        &self,
        protocol: XdsProtocol,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Responses>, Status> {
        let started = started(&request).unwrap_or_default();
        let Some((replaced, open)) = self.newest.lock().await.give_way(started) else {
            return Err(Status::unavailable("another Envoy has taken over"));
        };
        // One response is under way while the next one is received.
        let (to_envoy, responses) = mpsc::channel(1);
        let (context, turn) = (Arc::clone(&self.context), Arc::clone(&self.turn));
        self.scope.spawn(async move {
            let turn = turn.lock().await;
            // What the Envoy before left is for the one that comes now.
            if replaced.is_cancelled() {
                return;
            }
            let (silent, newer) = (to_envoy.clone(), replaced.clone());
            let left = relay::run(&context, protocol, request.into_inner(), to_envoy, replaced).await;
            if context.hung_up.is_cancelled() {
                tokio::select! {
                    () = silent.closed() => {}
                    () = newer.cancelled() => {}
                }
            }
            drop(silent);
            drop(open);
            drop(turn);
            if let Some(node) = left {
                Box::pin(own_stream::take_leave(&context, &node)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
    type StreamAggregatedResourcesStream = Responses;
    type DeltaAggregatedResourcesStream = Responses;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Responses>, Status> {
        self.open(XdsProtocol::Sotw, request).await
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Responses>, Status> {
        self.open(XdsProtocol::Delta, request).await
    }
}

/// Start of the process at the other end, in clock ticks after boot.
fn started<T>(request: &Request<T>) -> Option<u64> {
    let peer = request.extensions().get::<UdsConnectInfo>()?.peer_cred?;
    start_time(peer.pid()?.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_envoy_gives_way_to_a_younger_one_and_comes_back_after_it() {
        let mut newest = Newest::default();
        let (first, _first_open) = newest.give_way(10).unwrap();
        let (second, second_open) = newest.give_way(20).unwrap();
        assert!(first.is_cancelled() && !second.is_cancelled());
        assert!(newest.give_way(10).is_none());
        assert!(!second.is_cancelled());
        drop(second_open);
        assert!(newest.give_way(10).is_some());
    }

    #[test]
    fn envoy_that_connects_again_leaves_its_broken_connection() {
        let mut newest = Newest::default();
        let (broken, _open) = newest.give_way(10).unwrap();
        assert!(newest.give_way(10).is_some());
        assert!(broken.is_cancelled());
    }
}
