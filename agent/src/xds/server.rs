//! The ADS service on the unix socket: takes Envoy's streams, one at a time.

use std::mem;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use istio_api::frame::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use istio_api::frame::{Form, Frame};
use tokio::net::UnixListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{Context, relay};
use crate::host::connections_of;
use crate::supervise::Scope;

/// Largest request of Envoy's. Its initial versions name each resource it has.
const MAX_REQUEST: usize = 64 << 20;

/// Serves until the drain.
pub(super) async fn serve(scope: Scope, listener: UnixListener, context: Arc<Context>) -> Result<()> {
    let users = vec![context.options.owner.uid];
    let service = Service {
        scope: scope.clone(),
        context,
        newest: Mutex::default(),
        turn: Arc::default(),
    };
    let server = tonic::transport::Server::builder()
        .add_service(AggregatedDiscoveryServiceServer::new(service).max_decoding_message_size(MAX_REQUEST))
        .serve_with_incoming_shutdown(connections_of(users, listener), scope.draining());
    scope.ready();
    server.await.context("failed to serve Envoy's configuration")
}

struct Service {
    scope: Scope,
    context: Arc<Context>,
    /// Ends the newest stream.
    newest: Mutex<CancellationToken>,
    /// Held by the one stream that is relayed.
    turn: Arc<Mutex<()>>,
}

type Responses = ReceiverStream<Result<Frame, Status>>;

impl Service {
    /// Opens a stream in place of the one before: istiod must see one stream per VM, and of two the older one
    /// is an Envoy that is gone, or its broken connection.
    async fn open(&self, form: Form, from_envoy: Streaming<Frame>) -> Response<Responses> {
        // One response is under way while the next one is received.
        let (to_envoy, responses) = mpsc::channel(1);
        let replaced = CancellationToken::new();
        mem::replace(&mut *self.newest.lock().await, replaced.clone()).cancel();
        let (context, turn) = (Arc::clone(&self.context), Arc::clone(&self.turn));
        self.scope.spawn(async move {
            let _turn = turn.lock().await;
            relay::run(&context, form, from_envoy, to_envoy, replaced).await;
        });
        Response::new(ReceiverStream::new(responses))
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
        Ok(self.open(Form::StateOfTheWorld, request.into_inner()).await)
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Responses>, Status> {
        Ok(self.open(Form::Delta, request.into_inner()).await)
    }
}
