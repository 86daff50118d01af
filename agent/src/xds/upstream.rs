//! A stream to one istiod, on a connection of its own: from the first request to the end.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Error, Result, anyhow};
use istio_api::frame::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::frame::{AnyRequest, Changes, Frame, XdsProtocol};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::session::{ENTRY, MAX_SIZE, MAX_TYPES, Session};
use super::{Context, own_types};
use crate::control_plane::{self, AuthMethod, Connection};
use crate::facts::{Membership, ProbeState};
use crate::supervise::Clock;

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// Largest response of istiod's that the agent is ready to hold: some 20,000 clusters of 3 kB. One is held at a time.
const MAX_RESPONSE: usize = 64 << 20;
/// Longest part of the transport's words that is repeated.
const MAX_WORDS: usize = 200;
/// Requests that istiod has not read yet: Envoy's next one waits while fewer than the agent's own share is free. An
/// istiod that sends so many name tables and reads no answer to them is none to stay with.
const UNREAD: usize = 40;
const OWN_SHARE: usize = 32;

/// A connection that is ready for a stream.
#[derive(Debug)]
pub(super) struct Connected {
    /// `host:port`, as it was chosen.
    pub(super) chosen: String,
    connection: Connection,
    membership: Arc<Membership>,
    auth: AuthMethod,
    metadata: MetadataMap,
    clock: Clock,
}

/// The stream.
pub(super) struct Upstream {
    /// `host:port`, as it was chosen.
    pub(super) chosen: String,
    /// `host:port (ip)`.
    pub(super) address: String,
    pub(super) ip: IpAddr,
    /// Since when it answers.
    pub(super) answered: Option<Instant>,
    protocol: XdsProtocol,
    membership: Arc<Membership>,
    auth: AuthMethod,
    to_istiod: mpsc::Sender<Frame>,
    call: Call,
    /// When the first answer is due.
    due: Pin<Box<Sleep>>,
    death: Pin<Box<dyn Future<Output = Error> + Send>>,
    /// The first answer, until Envoy has room for it.
    first: Option<Frame>,
    /// What went to Envoy, by type, from the last that Envoy answered on.
    sent: HashMap<String, VecDeque<Sent>>,
    /// The size of that.
    unanswered: usize,
    /// Whether a request with the node in it has gone out.
    opened: bool,
    /// Whether istiod knows who asks, and so the agent's own requests may go out.
    introduced: bool,
    /// The last word on the application's health.
    healthy: Option<bool>,
    /// What was accepted last; a refusal in state-of-the-world form names it.
    names_version: String,
    overrun: bool,
    clock: Clock,
}

/// istiod sends no header before its first response, so a call isn't open before that.
enum Call {
    Opening(Pin<Box<dyn Future<Output = Result<Streaming<Frame>, Status>> + Send>>),
    Open(Box<Streaming<Frame>>),
}

#[derive(Debug)]
struct Sent {
    nonce: String,
    /// Until Envoy has answered.
    changes: Option<Changes>,
}

impl Sent {
    fn size(&self) -> usize {
        let changes = self.changes.as_ref();
        let resources = changes.into_iter().flat_map(|changes| &changes.resources);
        let removed = changes.into_iter().flat_map(|changes| &changes.removed);
        ENTRY
            + self.nonce.len()
            + resources
                .map(|(name, version)| ENTRY + name.len() + version.len())
                .sum::<usize>()
            + removed.map(|name| ENTRY + name.len()).sum::<usize>()
    }
}

/// Lets Envoy's requests through while istiod reads them.
pub(super) struct Gate(mpsc::Sender<Frame>);

impl Gate {
    /// Completes when there is room for one more beside the agent's own.
    pub(super) async fn opened(self) {
        // Fails when the call is over, and then the next response says so.
        let _ = self.0.reserve_many(OWN_SHARE + 1).await;
    }
}

/// Why a stream is over.
#[derive(Debug)]
pub(super) struct Loss {
    pub(super) error: Error,
    /// Whether the connection died of silence, so that another try there would only wait.
    pub(super) silent: bool,
}

impl Connected {
    /// Connects with the newest of all facts, and prepares the proof of who asks.
    pub(super) async fn to(context: &Context, chosen: String, patience: Duration) -> Result<Self> {
        let membership = context.inputs.membership.borrow().clone();
        let credentials = context.inputs.credentials.borrow().clone();
        let (credentials, now) = (credentials.as_deref(), context.options.clock.now());
        let connection = control_plane::connect(&membership, &chosen, credentials, now, patience).await?;
        let mut metadata = MetadataMap::new();
        let tokens = context.options.tokens.as_deref();
        let auth = control_plane::authorize(&mut metadata, &membership, credentials, tokens, now).await?;
        Ok(Self {
            chosen,
            connection,
            membership,
            auth,
            metadata,
            clock: context.options.clock,
        })
    }

    /// Opens the stream with all that the session knows. `guarded`: silence is to be noticed within seconds.
    pub(super) fn open(
        self,
        session: &Session,
        protocol: XdsProtocol,
        probe: &ProbeState,
        due: Instant,
        guarded: bool,
    ) -> Upstream {
        let death: Pin<Box<dyn Future<Output = Error> + Send>> = if guarded {
            Box::pin(self.connection.wait_dead())
        } else {
            Box::pin(std::future::pending())
        };
        let (to_istiod, outbound) = mpsc::channel(UNREAD);
        let opening = session.opening();
        let mut upstream = Upstream {
            chosen: self.chosen,
            address: self.connection.address,
            ip: self.connection.ip,
            answered: None,
            protocol,
            membership: self.membership,
            auth: self.auth,
            to_istiod,
            call: Call::Opening(Box::pin(std::future::pending())),
            due: Box::pin(sleep_until(due)),
            death,
            first: None,
            sent: HashMap::new(),
            unanswered: 0,
            opened: !opening.is_empty(),
            introduced: false,
            healthy: None,
            names_version: String::new(),
            overrun: false,
            clock: self.clock,
        };
        let mut frames = Vec::with_capacity(opening.len() + 2);
        for (type_url, frame) in opening {
            frames.push(frame);
            frames.extend(upstream.introduction(&type_url, probe));
        }
        let mut request = Request::new(tokio_stream::iter(frames).chain(ReceiverStream::new(outbound)));
        *request.metadata_mut() = self.metadata;
        upstream.call = Call::Opening(Box::pin(call(self.connection.channel, protocol, request)));
        upstream
    }
}

impl Upstream {
    /// The next response; the first one is awaited until it is due. Loses nothing when it is dropped.
    pub(super) async fn next(&mut self) -> Result<Frame, Loss> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        let (error, silent) = if self.overrun {
            (anyhow!("istiod at {} reads no requests", self.address), false)
        } else {
            tokio::select! {
                biased;
                received = self.call.receive() => match received {
                    Ok(Some(frame)) => return Ok(frame),
                    Ok(None) => (self.ended(), false),
                    Err(status) => (self.broke(&status), false),
                },
                error = &mut self.death => (error, true),
                () = &mut self.due, if self.answered.is_none() => (self.is_late(), true),
            }
        };
        Err(Loss { error, silent })
    }

    /// From now on it is the one that serves, with this response as its next one.
    pub(super) fn serve(&mut self, first: Frame) {
        self.answered = Some(Instant::now());
        self.first = Some(first);
    }

    fn ended(&self) -> Error {
        let without = if self.answered.is_some() {
            ""
        } else {
            " without an answer"
        };
        anyhow!("istiod at {} ended the stream{without}", self.address)
    }

    /// Once istiod has answered, what the VM proved itself with can't be the reason.
    fn broke(&self, status: &Status) -> Error {
        let place = format!("istiod at {}", self.address);
        if self.answered.is_some() {
            let words: String = status.message().chars().take(MAX_WORDS).collect();
            return anyhow!("the stream to {place} broke ({:?}: {words})", status.code());
        }
        let meaning = self.auth.explain(status, &self.membership, self.clock.now());
        anyhow!("{place}: {meaning}")
    }

    fn is_late(&self) -> Error {
        anyhow!("istiod at {} took the call and gave no answer in time", self.address)
    }

    /// Whether this is where the membership has it: at an address that the bundle lists, or that the resolver knew.
    pub(super) fn is_where(&self, membership: &Membership) -> bool {
        let listed = control_plane::listed_addresses(membership, &self.chosen);
        listed.is_empty() || listed.contains(&self.ip)
    }

    pub(super) fn gate(&self) -> Gate {
        Gate(self.to_istiod.clone())
    }

    /// Passes on a request of Envoy's. An answer to another istiod's response is none of this one's business,
    /// unless it asks for something beside.
    pub(super) fn tell(
        &mut self,
        frame: &Frame,
        request: &AnyRequest,
        news: bool,
        session: &Session,
        probe: &ProbeState,
    ) {
        let fits = request.response_nonce.is_empty() || self.knows(request);
        let whole = self.opened || request.node.is_some();
        if fits && whole {
            self.send(frame.clone());
        } else if fits || news {
            let mut own = request.clone();
            if !whole {
                own.node = session.node().cloned();
            }
            if !fits {
                own.response_nonce.clear();
                own.error_detail = None;
            }
            self.send(Frame::of_request(self.protocol, own));
        } else {
            return;
        }
        self.opened = true;
        for frame in self.introduction(&request.type_url, probe) {
            self.send(frame);
        }
    }

    /// What follows the first request for listeners: istiod knows who asks by the node in the first request, so
    /// nothing of the agent's may come before (istio/pkg/istio-agent/xds_proxy.go).
    fn introduction(&mut self, type_url: &str, probe: &ProbeState) -> Vec<Frame> {
        if type_url != LISTENER || self.introduced {
            return Vec::new();
        }
        self.introduced = true;
        let names = self
            .membership
            .dns_capture
            .then(|| own_types::ask_for_names(self.protocol));
        names.into_iter().chain(self.health(probe)).collect()
    }

    /// Says whether the application is healthy when that differs from what istiod was told; another reason for
    /// being unhealthy is not worth a write to its WorkloadEntry.
    pub(super) fn tell_health(&mut self, probe: &ProbeState) {
        if self.introduced
            && let Some(frame) = self.health(probe)
        {
            self.send(frame);
        }
    }

    fn health(&mut self, probe: &ProbeState) -> Option<Frame> {
        let (healthy, failure) = match probe {
            ProbeState::Healthy => (true, None),
            ProbeState::Unhealthy { reason } => (false, Some(reason.clone())),
            ProbeState::NotConfigured | ProbeState::Unknown => return None,
        };
        (self.healthy.replace(healthy) != Some(healthy)).then(|| own_types::health(self.protocol, failure))
    }

    /// Accepts a name table, or refuses it and says why.
    pub(super) fn answer_names(&mut self, version: String, nonce: &str, refused: Option<String>) {
        if refused.is_none() {
            self.names_version = version;
        }
        self.send(own_types::acknowledge(
            self.protocol,
            &self.names_version,
            nonce,
            refused,
        ));
    }

    /// A response goes to Envoy, who will answer with its nonce.
    pub(super) fn passed(&mut self, type_url: String, nonce: String, changes: Option<Changes>) {
        let sent = Sent { nonce, changes };
        self.unanswered += sent.size();
        self.sent.entry(type_url).or_default().push_back(sent);
    }

    /// Whether Envoy has answered to so little that no more is to be kept for it.
    pub(super) fn is_overfull(&self) -> bool {
        self.unanswered > MAX_SIZE || self.sent.len() > MAX_TYPES
    }

    /// Whether it is this istiod's response that the request answers.
    pub(super) fn knows(&self, request: &AnyRequest) -> bool {
        let sent = self.sent.get(&request.type_url);
        sent.is_some_and(|sent| sent.iter().any(|one| one.nonce == request.response_nonce))
    }

    /// What was in the response that the request answers; once only.
    pub(super) fn settle(&mut self, request: &AnyRequest) -> Option<Changes> {
        let sent = self.sent.get_mut(&request.type_url)?;
        let index = sent.iter().position(|one| one.nonce == request.response_nonce)?;
        // Envoy answers in order, and names the last nonce again with every change of a subscription.
        self.unanswered -= sent.drain(..index).map(|sent| sent.size()).sum::<usize>();
        let answered = sent.front_mut()?;
        self.unanswered -= answered.size();
        let changes = answered.changes.take();
        self.unanswered += answered.size();
        changes
    }

    fn send(&mut self, frame: Frame) {
        // A closed one is noticed where the responses are read.
        self.overrun |= matches!(self.to_istiod.try_send(frame), Err(TrySendError::Full(_)));
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
