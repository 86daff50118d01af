//! One try to reach istiod, and the stream that comes of it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow};
use istio_api::frame::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::frame::{Form, Frame};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::Context;
use super::relay::Downstream;
use super::requests::Requests;
use super::responses::Responses;
use crate::control_plane::{self, Proof};
use crate::facts::Membership;

/// Largest response of istiod's that the agent is ready to hold.
const MAX_RESPONSE: usize = 256 << 20;
/// Longest part of the transport's words that is repeated.
const MAX_WORDS: usize = 200;

/// How a try ended.
#[derive(Debug)]
pub(super) enum End {
    /// Nothing came from istiod: it can be tried again, and Envoy needn't know.
    Unanswered(anyhow::Error),
    /// With a stream that istiod had answered on.
    Upstream(anyhow::Error),
    /// By Envoy; what it is told, should it still listen.
    Envoy(Status),
}

/// What the direction from istiod tells the one towards it. A `watch` and no queue, so that reading from istiod
/// never waits for writing to it: istiod writes and reads in one loop, and both sides would stand still.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Whether istiod has answered at all.
    pub(super) answered: bool,
    /// The answer to the newest name table; one that a newer one overtook is worth nothing.
    pub(super) acknowledgement: Option<Frame>,
}

/// A connection of its own for a stream, so that a dead one is never used again.
#[derive(Debug)]
struct Upstream {
    client: AggregatedDiscoveryServiceClient<Channel>,
    /// `host:port (ip)`.
    address: String,
    membership: Arc<Membership>,
    proof: Proof,
}

/// Connects to `address` and relays Envoy's stream until one side ends.
pub(super) async fn attempt(context: &Context, address: &str, downstream: &mut Downstream) -> End {
    let (to_istiod, outbound) = mpsc::channel(1);
    let mut request = Request::new(ReceiverStream::new(outbound));
    let mut upstream = match Upstream::connect(context, address, &mut request).await {
        Ok(upstream) => upstream,
        Err(error) => return End::Unanswered(error),
    };
    let progress = watch::Sender::new(Progress::default());
    let requests = Requests {
        form: downstream.form,
        wants_names: upstream.membership.dns_capture,
        report: &context.report,
        from_envoy: &mut downstream.requests,
        unanswered: &mut downstream.unanswered,
        probe: context.inputs.probe.clone(),
        progress: progress.subscribe(),
        to_istiod,
    };
    let responses = Responses {
        form: downstream.form,
        address: &upstream.address,
        context,
        to_envoy: &downstream.responses,
        progress: &progress,
    };
    let call = call(&mut upstream.client, downstream.form, request);
    let ended = tokio::select! {
        status = requests.pump() => return End::Envoy(status),
        ended = responses.pump(call) => ended,
    };
    upstream.end(context, ended, progress.borrow().answered)
}

impl Upstream {
    /// Connects with the newest of all facts, and makes `request` prove who asks.
    async fn connect<T>(context: &Context, address: &str, request: &mut Request<T>) -> Result<Self> {
        let membership = context.inputs.membership.borrow().clone();
        let credentials = context.inputs.credentials.borrow().clone();
        let now = context.options.clock.now();
        let connection = control_plane::connect(
            &membership,
            address,
            credentials.as_deref(),
            now,
            Duration::from_secs(10),
        )
        .await?;
        let proof = control_plane::authorize(
            request.metadata_mut(),
            &membership,
            credentials.as_deref(),
            context.options.tokens.as_deref(),
            now,
        )
        .await?;
        let client = AggregatedDiscoveryServiceClient::new(connection.channel).max_decoding_message_size(MAX_RESPONSE);
        Ok(Self {
            client,
            address: connection.address,
            membership,
            proof,
        })
    }

    /// Why the stream ended. Once istiod has answered, what the VM proved itself with can't be the reason.
    fn end(&self, context: &Context, ended: Result<(), Status>, answered: bool) -> End {
        let place = format!("istiod at {}", self.address);
        match ended {
            Ok(()) if answered => End::Upstream(anyhow!("{place} ended the stream")),
            Ok(()) => End::Unanswered(anyhow!("{place} ended the stream without an answer")),
            Err(status) if answered => {
                let words: String = status.message().chars().take(MAX_WORDS).collect();
                End::Upstream(anyhow!("the stream to {place} broke ({:?}: {words})", status.code()))
            }
            Err(status) => {
                let now = context.options.clock.now();
                let meaning = self.proof.explain(&status, &self.membership, now);
                End::Unanswered(anyhow!("{place}: {meaning}"))
            }
        }
    }
}

/// istiod sends no header before its first response, so this ends no sooner than that.
async fn call(
    client: &mut AggregatedDiscoveryServiceClient<Channel>,
    form: Form,
    request: Request<ReceiverStream<Frame>>,
) -> Result<Streaming<Frame>, Status> {
    match form {
        Form::StateOfTheWorld => client.stream_aggregated_resources(request).await,
        Form::Delta => client.delta_aggregated_resources(request).await,
    }
    .map(Response::into_inner)
}
