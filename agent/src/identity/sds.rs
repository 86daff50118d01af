//! Envoy's secrets (SDS) on a unix socket: the VM's certificate, the mesh's roots, and files that Envoy's user may
//! read.
//!
//! A secret that changes is pushed to the streams that asked for it. One that can't be had is a log line and
//! nothing else: the stream stays up, and Envoy keeps the last good one.

mod exchange;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod secret;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse};
use istio_api::sds::secret_discovery_service_server::{SecretDiscoveryService, SecretDiscoveryServiceServer};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

use self::exchange::{Answer, Question, converse};
use self::secret::Source;
use crate::facts::Credentials;
use crate::host::{Host, Owner, connections_of};
use crate::supervise::Scope;

/// Answers on their way to one stream.
const QUEUE: usize = 4;

/// Where secrets are served, and to whom.
#[derive(Debug)]
pub struct Options {
    /// The machine.
    pub host: Host,
    /// The socket; its directory is there.
    pub socket: PathBuf,
    /// Envoy's user: it may connect, and `file-*` secrets are read for it.
    pub owner: Owner,
}

/// Serves until the scope drains; ready when the socket is there. Fails when it can't be bound.
pub async fn serve(
    scope: Scope,
    options: Options,
    credentials: watch::Receiver<Option<Arc<Credentials>>>,
) -> Result<()> {
    let Options { host, socket, owner } = options;
    let listener = host.listen(&socket, Some(owner.gid))?;
    let secrets = Secrets {
        scope: scope.clone(),
        source: Source::new(host, owner, credentials),
    };
    scope.ready();
    Server::builder()
        .add_service(SecretDiscoveryServiceServer::new(secrets))
        .serve_with_incoming_shutdown(connections_of(vec![owner.uid], listener), scope.draining())
        .await
        .context("failed to serve secrets")
}

struct Secrets {
    scope: Scope,
    source: Source,
}

impl Secrets {
    fn answer<Q: Question, A: Answer>(&self, questions: Streaming<Q>) -> Response<ReceiverStream<Result<A, Status>>> {
        let (answers, stream) = mpsc::channel(QUEUE);
        self.scope.spawn(converse(questions, answers, self.source.clone()));
        Response::new(ReceiverStream::new(stream))
    }
}

#[tonic::async_trait]
impl SecretDiscoveryService for Secrets {
    type DeltaSecretsStream = ReceiverStream<Result<DeltaDiscoveryResponse, Status>>;
    type StreamSecretsStream = ReceiverStream<Result<DiscoveryResponse, Status>>;

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(self.answer(request.into_inner()))
    }

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(self.answer(request.into_inner()))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed"))
    }
}

#[cfg(test)]
mod tests;
