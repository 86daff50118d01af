//! Envoy's secrets (SDS) on a unix socket: the VM's certificate, the mesh's roots, and files that Envoy's user may
//! read.
//!
//! A secret that changes is pushed to the streams that asked for it. One that can't be had is a log line and
//! nothing else: the stream stays up, and Envoy keeps the last good one.

mod exchange;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod responses;
mod secret;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use istio_api::sds::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer};
use tokio::sync::{Semaphore, watch};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use self::exchange::{SdsRequest, SdsResponse, Subscription, serve_stream};
use self::responses::Responses;
use self::secret::Source;
use crate::bounds::Refusals;
use crate::facts::Credentials;
use crate::host::{Audience, Host, Owner, connections_of};
use crate::supervise::Scope;

/// Most connections: Envoy has one, and there may be two Envoys.
const MAX_CONNECTIONS: usize = 16;
/// Most streams: Envoy has one for each secret.
const MAX_STREAMS: usize = 128;
/// Longest request, in bytes. Who asks, which is skipped, is most of it.
const MAX_REQUEST: usize = 256 << 10;
/// Most responses that are in memory at once, on all streams: each stream waits for its turn, and gives it on when Envoy
/// has taken what it was sent.
const MAX_RESPONSES: usize = 16;

/// Settings of the secret service.
#[derive(Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// The socket; its directory is there.
    pub socket: PathBuf,
    /// Envoy's user and group: they may connect, and `file-*` secrets are read for it.
    pub owner: Owner,
    /// Counts connections, streams and names beyond what Envoy needs.
    pub refusals: Refusals,
}

/// Serves until the scope drains; ready when the socket is there.
///
/// # Errors
/// When the socket can't be bound.
pub async fn serve(
    scope: Scope,
    options: Options,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
) -> Result<()> {
    let Options {
        host,
        socket,
        owner,
        refusals,
    } = options;
    let listener = host.listen(&socket, Some(owner.gid))?;
    let secrets = Secrets {
        scope: scope.clone(),
        source: Source::new(host, owner, credentials),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        turns: Arc::new(Semaphore::new(MAX_RESPONSES)),
        refusals: refusals.clone(),
    };
    let audience = Audience {
        users: vec![owner.uid],
        most: MAX_CONNECTIONS,
        refusals,
    };
    let service = SecretDiscoveryServiceServer::new(secrets).max_decoding_message_size(MAX_REQUEST);
    scope.ready();
    Server::builder()
        .add_service(service)
        .serve_with_incoming_shutdown(connections_of(audience, listener), scope.draining())
        .await
        .context("failed to serve secrets")
}

struct Secrets {
    scope: Scope,
    source: Source,
    streams: Arc<Semaphore>,
    turns: Arc<Semaphore>,
    refusals: Refusals,
}

impl Secrets {
    fn serve<Q: SdsRequest, A: SdsResponse>(&self, requests: Streaming<Q>) -> Result<Response<Responses<A>>, Status> {
        let Ok(place) = Arc::clone(&self.streams).try_acquire_owned() else {
            self.refusals.count("SDS streams", "");
            return Err(Status::resource_exhausted("more streams than Envoy has secrets"));
        };
        let (responses, stream) = Responses::new();
        let subscription = Subscription::new(self.refusals.clone());
        let turns = Arc::clone(&self.turns);
        let conversation = serve_stream(requests, responses, self.source.clone(), turns, subscription);
        self.scope.spawn(async move {
            conversation.await;
            drop(place);
        });
        Ok(Response::new(stream))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = Responses<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Responses<DiscoveryResponse>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        self.serve(request.into_inner())
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        self.serve(request.into_inner())
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed"))
    }
}

#[cfg(test)]
mod tests;
