//! An istiod on TLS whose every stream a test holds in its hands, and an Envoy on the agent's socket.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use istio_api::frame::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::frame::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use istio_api::frame::{Frame, XdsProtocol};
use kit::grpc;
use tokio::net::{TcpListener, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response, Status, Streaming};

use crate::bounds::Refusals;
use crate::control_plane::ControlPlaneSelector;
use crate::control_plane::fixtures::{Ca, ISTIOD, Wire, issued_by, membership};
use crate::facts::{
    Credentials, Departure, EnvoyState, HostState, Membership, NameTable, ProbeState, XdsCounts, XdsState,
};
use crate::host::{Host, Owner, Read, System};
use crate::supervise::{Clock, Scope};
use crate::xds::snapshot::SnapshotFile;
use crate::xds::{Inputs, Options, Outputs, run};

pub(super) const SNAPSHOT: &str = "/xds.snapshot";
pub(super) const LOCAL: [u8; 4] = [127, 0, 0, 1];
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest that a test waits for what must come.
const DEADLINE: Duration = Duration::from_secs(20);

/// Waits for what must come.
pub(super) async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("nothing within the deadline")
}

/// Both sides of a stream; dropping it ends the stream.
pub(super) struct Stream {
    pub(super) protocol: XdsProtocol,
    /// Name of the istiod that it is of.
    pub(super) istiod: &'static str,
    pub(super) metadata: MetadataMap,
    /// The certificate that the caller showed, DER.
    pub(super) certificate: Option<Vec<u8>>,
    pub(super) incoming: Streaming<Frame>,
    pub(super) outgoing: mpsc::Sender<Result<Frame, Status>>,
}

impl Stream {
    /// The next message.
    pub(super) async fn next(&mut self) -> Frame {
        soon(self.incoming.message()).await.unwrap().expect("the stream ended")
    }

    pub(super) async fn send(&self, frame: &Frame) {
        soon(self.outgoing.send(Ok(frame.clone()))).await.unwrap();
    }

    /// Waits for the end, and tells the reason.
    pub(super) async fn end(&mut self) -> Status {
        loop {
            match soon(self.incoming.message()).await {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok(""),
                Err(status) => return status,
            }
        }
    }
}

struct Istiod {
    name: &'static str,
    accepted: mpsc::Sender<Stream>,
}

type Responses = ReceiverStream<Result<Frame, Status>>;

impl Istiod {
    async fn open(
        &self,
        protocol: XdsProtocol,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Responses>, Status> {
        if request.metadata().get("clusterid").is_none() {
            return Err(Status::unauthenticated("no cluster"));
        }
        let (outgoing, responses) = mpsc::channel(1);
        let stream = Stream {
            protocol,
            istiod: self.name,
            certificate: request.peer_certs().and_then(|chain| Some(chain.first()?.to_vec())),
            metadata: request.metadata().clone(),
            incoming: request.into_inner(),
            outgoing,
        };
        self.accepted.send(stream).await.unwrap();
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

#[tonic::async_trait]
impl AggregatedDiscoveryService for Istiod {
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

/// The agent's part under test, with all that it is connected to.
pub(super) struct Mesh {
    pub(super) world: World,
    /// Port of the one istiod, where there is one.
    pub(super) port: u16,
    pub(super) socket: PathBuf,
    pub(super) selector: ControlPlaneSelector,
    pub(super) membership: watch::Sender<Arc<Membership>>,
    pub(super) probe: watch::Sender<ProbeState>,
    pub(super) proxy: watch::Sender<EnvoyState>,
    pub(super) machine: watch::Sender<HostState>,
    pub(super) departure: watch::Sender<Departure>,
    pub(super) credentials: watch::Sender<Option<Arc<Credentials>>>,
    pub(super) state: watch::Receiver<XdsState>,
    pub(super) names: watch::Receiver<Option<Arc<NameTable>>>,
    streams: mpsc::Receiver<Stream>,
    _drain: CancellationToken,
}

/// A port of our own that refuses until `start_istiod`.
async fn refusing_port() -> u16 {
    let listener = TcpListener::bind((IpAddr::from(LOCAL), 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

/// The place where istiods run.
pub(super) struct World {
    pub(super) ca: Ca,
    pub(super) scope: Scope,
    accepted: mpsc::Sender<Stream>,
    /// The agent's disk.
    directory: tempfile::TempDir,
}

impl World {
    fn new() -> (Self, mpsc::Receiver<Stream>, CancellationToken) {
        let (scope, drain) = Scope::detached();
        let (accepted, streams) = mpsc::channel(4);
        let world = Self {
            ca: Ca::new("mesh"),
            scope,
            accepted,
            directory: tempfile::tempdir().unwrap(),
        };
        (world, streams, drain)
    }

    fn host(&self) -> Host {
        Host::new(self.directory.path(), System)
    }

    /// Snapshot of an Envoy before this one.
    pub(super) fn snapshot(&self) -> SnapshotFile {
        SnapshotFile {
            host: self.host(),
            path: SNAPSHOT.into(),
        }
    }

    fn membership(&self) -> Membership {
        Membership {
            roots_pem: self.ca.root_pem(),
            ..membership()
        }
    }

    /// Starts one at a port of this address, any if it is 0; `name` is what its streams are known by.
    pub(super) async fn serve(&self, name: &'static str, ip: [u8; 4], port: u16) -> u16 {
        let now = SystemTime::now();
        let serving = self.ca.serving(&[ISTIOD], now - DAY, now + DAY);
        let service = Istiod {
            name,
            accepted: self.accepted.clone(),
        };
        let router = Server::builder().add_service(AggregatedDiscoveryServiceServer::new(service));
        let (port, server) = grpc::serve((ip, port), &serving, &self.ca.root_pem(), router).await;
        self.scope.spawn(async move { server.await.unwrap() });
        port
    }

    /// Starts one behind a wire.
    async fn serve_behind(&self, name: &'static str) -> Wire {
        let port = self.serve(name, LOCAL, 0).await;
        Wire::to(&self.scope, LOCAL.into(), port).await
    }
}

impl Mesh {
    /// An agent whose istiod is not there yet.
    pub(super) async fn without_istiod() -> Self {
        Self::with_addresses(|port| vec![format!("{ISTIOD}:{port}")]).await
    }

    /// An agent with these control planes, given istiod's port.
    pub(super) async fn with_addresses(addresses: impl Fn(u16) -> Vec<String>) -> Self {
        let port = refusing_port().await;
        let (world, streams, drain) = World::new();
        Self::agent(world, streams, drain, port, addresses(port))
    }

    /// An agent whose istiod is not there yet, with what this writes on its disk.
    pub(super) async fn starting_black(write: impl FnOnce(&SnapshotFile, &Membership)) -> Self {
        let port = refusing_port().await;
        let (world, streams, drain) = World::new();
        write(&world.snapshot(), &world.membership());
        Self::agent(world, streams, drain, port, vec![format!("{ISTIOD}:{port}")])
    }

    /// An agent that takes over from one to which an Envoy of this node was connected.
    pub(super) async fn taking_over(node: &[u8]) -> Self {
        let port = refusing_port().await;
        let (world, streams, drain) = World::new();
        world.host().write_bytes("/node".as_ref(), node, 0o600).unwrap();
        let mesh = Self::agent(world, streams, drain, port, vec![format!("{ISTIOD}:{port}")]);
        mesh.start_istiod().await;
        mesh
    }

    /// An agent with two control planes, `a` and `b`, that can be broken.
    pub(super) async fn of_two() -> (Self, Wire, Wire) {
        let (world, streams, drain) = World::new();
        let (a, b) = (world.serve_behind("a").await, world.serve_behind("b").await);
        let addresses = [&a, &b].map(|wire| format!("{ISTIOD}:{}", wire.port));
        (Self::agent(world, streams, drain, 0, addresses.to_vec()), a, b)
    }

    fn agent(
        world: World,
        streams: mpsc::Receiver<Stream>,
        drain: CancellationToken,
        port: u16,
        addresses: Vec<String>,
    ) -> Self {
        let (membership_tx, membership) = watch::channel(Arc::new(world.membership()));
        let now = SystemTime::now();
        let held = issued_by(&world.ca, now - DAY, now + DAY);
        let (credentials, credentials_rx) = watch::channel(Some(Arc::new(held)));
        let (probe, probe_rx) = watch::channel(ProbeState::NotConfigured);
        let (proxy, proxy_rx) = watch::channel(EnvoyState::Waiting);
        let departure = watch::Sender::new(Departure::Staying);
        let machine = watch::Sender::default();
        let (state_tx, state) = watch::channel(XdsState::default());
        let (names_tx, names) = watch::channel(None);
        let selector = ControlPlaneSelector::new(addresses, Duration::ZERO, Clock::System);
        let options = Options {
            unix_sockets: Vec::new(),
            refusals: Refusals::default(),
            counts: XdsCounts::default(),
            host: world.host(),
            socket: "/XDS".into(),
            name_table_cache: "/names.json".into(),
            node: "/node".into(),
            place: "/place.sock".into(),
            standby: None,
            snapshot: SNAPSHOT.into(),
            owner: Owner {
                uid: nix::unistd::getuid().as_raw(),
                gid: nix::unistd::getgid().as_raw(),
            },
            selector: selector.clone(),
            tokens: None,
            clock: Clock::System,
        };
        let inputs = Inputs {
            membership,
            credentials: credentials_rx,
            probe: probe_rx,
            envoy: proxy_rx,
            host: machine.subscribe(),
            departure: departure.subscribe(),
        };
        let outputs = Outputs {
            state: state_tx,
            names: names_tx,
        };
        let task = run(world.scope.clone(), options, inputs, outputs);
        world.scope.spawn(async move { task.await.unwrap() });
        Self {
            port,
            socket: world.directory.path().join("XDS"),
            world,
            selector,
            membership: membership_tx,
            probe,
            proxy,
            machine,
            departure,
            credentials,
            state,
            names,
            streams,
            _drain: drain,
        }
    }

    /// The node that the next agent finds.
    pub(super) fn kept_node(&self) -> Vec<u8> {
        let read = self.world.host().read_bytes("/node".as_ref(), Read::max(1 << 20));
        read.unwrap().unwrap_or_default()
    }

    /// True when no istiod has been given a stream that the test has not taken.
    pub(super) fn no_stream(&mut self) -> bool {
        self.streams.try_recv().is_err()
    }

    pub(super) async fn new() -> Self {
        let mesh = Self::without_istiod().await;
        mesh.start_istiod().await;
        mesh
    }

    pub(super) async fn start_istiod(&self) {
        self.world.serve("istiod", LOCAL, self.port).await;
    }

    /// The next stream that istiod is asked for.
    pub(super) async fn accepted(&mut self) -> Stream {
        soon(self.streams.recv()).await.unwrap()
    }

    /// Opens a stream as Envoy does.
    pub(super) async fn envoy(&self, protocol: XdsProtocol) -> Stream {
        let socket = self.socket.clone();
        let dial = tower::service_fn(move |_| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(hyper_util::rt::TokioIo::new) }
        });
        let channel = loop {
            // The socket appears when the agent is there.
            match Endpoint::from_static("http://xds")
                .connect_with_connector(dial.clone())
                .await
            {
                Ok(channel) => break channel,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let (outgoing, requests) = mpsc::channel(1);
        let requests = tokio_stream::StreamExt::map(ReceiverStream::new(requests), |frame: Result<Frame, Status>| {
            frame.unwrap()
        });
        let response = match protocol {
            XdsProtocol::Sotw => soon(client.stream_aggregated_resources(requests)).await,
            XdsProtocol::Delta => soon(client.delta_aggregated_resources(requests)).await,
        };
        Stream {
            protocol,
            istiod: "",
            metadata: MetadataMap::new(),
            certificate: None,
            incoming: response.unwrap().into_inner(),
            outgoing,
        }
    }

    /// Waits until the state is as wanted.
    pub(super) async fn until(&mut self, wanted: impl FnMut(&XdsState) -> bool) -> XdsState {
        soon(self.state.wait_for(wanted)).await.unwrap().clone()
    }
}
