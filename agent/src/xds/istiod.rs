//! istiod as a [`Peer`]: a gRPC stream on a connection of its own, from the first request to the end.

use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use istio_api::frame::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::frame::{Frame, XdsProtocol};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::Context;
use super::peer::{Disconnect, Peer};
use crate::bounds::bounded_words;
use crate::control_plane::{self, AuthMethod, Connection};
use crate::facts::{HostState, Membership};
use crate::supervise::Clock;

/// Largest response that the agent is ready to hold, in bytes: some 20,000 clusters of 3 kB. One is held at a time.
const MAX_RESPONSE: usize = 64 << 20;
/// Longest part of the transport's words that is repeated, in characters.
const MAX_WORDS: usize = 200;
/// Requests that istiod has not read yet. An istiod that sends so many name tables and reads no answer to them is none
/// to stay with.
const MAX_UNREAD: usize = 40;
/// The agent's own share of [`MAX_UNREAD`]: Envoy's next request waits while fewer are free.
const AGENTS_SHARE: usize = 32;

/// A connection that is ready for a stream.
#[derive(Debug)]
pub(super) struct Connected {
    /// `host:port`, as it was selected.
    control_plane: String,
    connection: Connection,
    membership: Arc<Membership>,
    auth: AuthMethod,
    metadata: MetadataMap,
    clock: Clock,
    /// The VM's own address on the connection, where its going would be noticed.
    source: Option<IpAddr>,
    /// Times that the machine had slept before.
    resumes: u64,
}

/// The stream.
struct Istiod {
    /// `host:port`, as it was selected.
    control_plane: String,
    /// `host:port (ip)`.
    address: String,
    ip: IpAddr,
    /// The VM's own address on the connection, where its going would be noticed.
    source: Option<IpAddr>,
    /// Times that the machine had slept before.
    resumes: u64,
    membership: Arc<Membership>,
    auth: AuthMethod,
    clock: Clock,
    requests: mpsc::Sender<Frame>,
    /// True once a request came for which there was no room.
    overrun: bool,
    call: Call,
    has_answered: bool,
    /// Ends when the first response is due.
    first_response_due: Pin<Box<Sleep>>,
    /// Ends when the connection is dead.
    death: Pin<Box<dyn Future<Output = Error> + Send>>,
}

/// istiod sends no header before its first response, so a call isn't open before that.
enum Call {
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<Frame>, Status>> + Send>>),
    Open(Box<Streaming<Frame>>),
}

impl Connected {
    /// Connects with the newest of all facts, and prepares the authentication.
    pub(super) async fn to(context: &Context, control_plane: String, limit: Duration) -> Result<Self> {
        let resumes = context.inputs.host.borrow().resumes;
        let membership = context.inputs.membership.borrow().clone();
        let credentials = context.inputs.credentials.borrow().clone();
        let (credentials, now) = (credentials.as_deref(), context.options.clock.now());
        let connection = control_plane::connect(&membership, &control_plane, credentials, now, limit).await?;
        let source = Some(connection.source).filter(|source| context.inputs.host.borrow().may_have(*source));
        let mut metadata = MetadataMap::new();
        let tokens = context.options.tokens.as_deref();
        let auth = control_plane::authorize(&mut metadata, &membership, credentials, tokens, now).await?;
        Ok(Self {
            control_plane,
            connection,
            membership,
            auth,
            metadata,
            clock: context.options.clock,
            source,
            resumes,
        })
    }

    /// True when the agent resolves names for the VM, and so istiod's name table is wanted.
    pub(super) fn wants_names(&self) -> bool {
        self.membership.dns_capture
    }

    /// Opens the stream with these requests; its first response is due at `due`. `watched`: silence is to be noticed
    /// within seconds.
    pub(super) fn open(
        self,
        protocol: XdsProtocol,
        requests: Vec<Frame>,
        due: Instant,
        watched: bool,
    ) -> Box<dyn Peer> {
        let death: Pin<Box<dyn Future<Output = Error> + Send>> = if watched {
            Box::pin(self.connection.wait_dead())
        } else {
            Box::pin(std::future::pending())
        };
        let (later, outbound) = mpsc::channel(MAX_UNREAD);
        let outbound = tokio_stream::iter(requests).chain(ReceiverStream::new(outbound));
        let mut request = Request::new(outbound);
        *request.metadata_mut() = self.metadata;
        Box::new(Istiod {
            control_plane: self.control_plane,
            address: self.connection.address,
            ip: self.connection.ip,
            source: self.source,
            resumes: self.resumes,
            membership: self.membership,
            auth: self.auth,
            clock: self.clock,
            requests: later,
            overrun: false,
            call: Call::Opening(Box::pin(call(self.connection.channel, protocol, request))),
            has_answered: false,
            first_response_due: Box::pin(sleep_until(due)),
            death,
        })
    }
}

impl Peer for Istiod {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_control_plane(&self) -> bool {
        true
    }

    /// Any address that the bundle lists will do, or else the one that the resolver knew.
    fn is_at(&self, selected: &str, membership: &Membership, host: &HostState) -> bool {
        let listed = control_plane::listed_addresses(membership, &self.control_plane);
        let is_listed = listed.is_empty() || listed.contains(&self.ip);
        let has_gone = self.source.is_some_and(|source| !host.may_have(source));
        let is_reached = !has_gone && host.resumes == self.resumes;
        self.control_plane == selected && is_listed && is_reached
    }

    fn room(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let requests = self.requests.clone();
        Box::pin(async move {
            // Fails when the call is over, and then the next response says so.
            let _ = requests.reserve_many(AGENTS_SHARE + 1).await;
        })
    }

    fn send(&mut self, request: Frame) {
        // A closed channel is noticed where the responses are read.
        self.overrun |= matches!(self.requests.try_send(request), Err(TrySendError::Full(_)));
    }

    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Frame, Disconnect>> + Send + '_>> {
        Box::pin(async {
            if self.overrun {
                return Err(self.disconnect(anyhow!("istiod at {} reads no requests", self.address)));
            }
            tokio::select! {
                biased;
                received = self.call.receive() => match received {
                    Ok(Some(frame)) => {
                        self.has_answered = true;
                        Ok(frame)
                    }
                    Ok(None) => Err(self.disconnect(self.ended())),
                    Err(status) => Err(self.disconnect(self.broke(&status))),
                },
                error = &mut self.death => Err(self.silent(error)),
                () = &mut self.first_response_due, if !self.has_answered => {
                    Err(self.silent(anyhow!("istiod at {} took the call and gave no answer in time", self.address)))
                }
            }
        })
    }
}

impl Istiod {
    fn disconnect(&self, error: Error) -> Disconnect {
        Disconnect { error, silent: None }
    }

    fn silent(&self, error: Error) -> Disconnect {
        let silent = Some(self.control_plane.clone());
        Disconnect { error, silent }
    }

    fn ended(&self) -> Error {
        let without = if self.has_answered { "" } else { " without an answer" };
        anyhow!("istiod at {} ended the stream{without}", self.address)
    }

    /// Once istiod has answered, the authentication can't be the reason.
    fn broke(&self, status: &Status) -> Error {
        let place = format!("istiod at {}", self.address);
        if self.has_answered {
            let words = bounded_words(status.message(), MAX_WORDS);
            return anyhow!("the stream to {place} broke ({:?}: {words})", status.code());
        }
        let meaning = self.auth.explain(status, &self.membership, self.clock.now());
        anyhow!("{place}: {meaning}")
    }
}

impl Call {
    async fn receive(&mut self) -> Result<Option<Frame>, Status> {
        loop {
            match self {
                Self::Opening(opening) => *self = Self::Open(Box::new(opening.await?)),
                Self::Open(responses) => return responses.message().await,
            }
        }
    }
}

async fn call<R>(channel: Channel, protocol: XdsProtocol, request: Request<R>) -> Result<Streaming<Frame>, Status>
where
    R: tokio_stream::Stream<Item = Frame> + Send + 'static,
{
    let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
    match protocol {
        XdsProtocol::Sotw => client.stream_aggregated_resources(request).await,
        XdsProtocol::Delta => client.delta_aggregated_resources(request).await,
    }
    .map(Response::into_inner)
}
