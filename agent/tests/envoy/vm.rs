//! A VM for these cases: a network namespace of its own, a run directory, and an istiod that knows one listener.

use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use istio_api::ads::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource};
use istio_api::rpc::Any;
use istio_vm_agent::config::{EnvoyConfig, PathsConfig};
use istio_vm_agent::envoy::{self, Options};
use istio_vm_agent::facts::{ContainerState, EnvoyState, Membership, ProxyConfig, SpiffeId};
use istio_vm_agent::host::{Host, Invocation, Owner};
use istio_vm_agent::supervise::Supervisor;
use serde_json::json;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use tracing_subscriber::fmt::MakeWriter;

/// Longer than anything here takes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const ENVOY: Owner = Owner { uid: 1337, gid: 1337 };

pub(crate) struct Vm {
    pub(crate) options: Options,
    pub(crate) membership: watch::Sender<Arc<Membership>>,
    pub(crate) container: watch::Sender<ContainerState>,
    pub(crate) log: Log,
    _directory: tempfile::TempDir,
    _istiod: Supervisor,
    _subscriber: tracing::subscriber::DefaultGuard,
}

/// One life of an agent.
pub(crate) struct Agent {
    supervisor: Supervisor,
    pub(crate) state: watch::Receiver<EnvoyState>,
}

impl Vm {
    /// A VM whose network is this thread's alone.
    pub(crate) fn new() -> Self {
        #[expect(
            deprecated,
            reason = "unsafe for shared file descriptors only, which a network namespace isn't"
        )]
        rustix::thread::unshare(rustix::thread::UnshareFlags::NEWNET).expect("needs root, for a network namespace");
        let host = Host::system();
        host.run(&Invocation::new(["ip", "link", "set", "lo", "up"])).unwrap();
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let paths = PathsConfig {
            run: directory.path().join("run"),
            state: directory.path().join("state"),
        };
        let config = EnvoyConfig {
            binary: Some(binary()),
            concurrency: Some(1),
            ..EnvoyConfig::default()
        };
        let log = Log::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::DEBUG)
            .with_ansi(false)
            .with_writer(log.clone())
            .finish();
        host.make_directory(&paths.run, 0o755, None).unwrap();
        let istiod = istiod(&host, &paths.xds_socket());
        Self {
            options: Options {
                host,
                config,
                paths,
                unit: None,
                published: Vec::new(),
            },
            membership: watch::Sender::new(Arc::new(membership())),
            container: watch::Sender::default(),
            log,
            _directory: directory,
            _istiod: istiod,
            _subscriber: tracing::subscriber::set_default(subscriber),
        }
    }

    /// Starts an agent that has Envoy's two tasks.
    pub(crate) fn agent(&self) -> Agent {
        let mut supervisor = Supervisor::default();
        let state = watch::Sender::new(EnvoyState::Waiting);
        let (options, membership) = (self.options.clone(), self.membership.subscribe());
        let container = self.container.subscribe();
        let outputs = envoy::Outputs {
            state: state.clone(),
            problem: watch::Sender::new(None),
        };
        supervisor.spawn("envoy", PATIENCE, |scope| {
            envoy::run(scope, options, membership, container, outputs)
        });
        let (options, membership) = (self.options.clone(), self.membership.subscribe());
        let (said, state) = (state.clone(), state.subscribe());
        supervisor.spawn("drain", PATIENCE, |scope| {
            envoy::drain(scope, options, membership, said)
        });
        Agent { supervisor, state }
    }

    pub(crate) fn running(&self) -> Option<u32> {
        envoy::running(&self.options.host, &self.options.paths)
    }

    /// What is in the run directory, istiod's socket aside.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let names = std::fs::read_dir(&self.options.paths.run).unwrap();
        let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != "xds.sock").collect()
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // A case that failed leaves its Envoy behind, and the one before it.
        while let Some(pid) = self.running() {
            let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
}

impl Agent {
    /// Waits for a state.
    pub(crate) async fn wait_for(&mut self, wanted: impl FnMut(&EnvoyState) -> bool) -> EnvoyState {
        let found = tokio::time::timeout(PATIENCE, self.state.wait_for(wanted)).await;
        found
            .map(|state| state.unwrap().clone())
            .unwrap_or_else(|_| panic!("stayed {:?}", self.state.borrow()))
    }

    /// Waits until Envoy is ready: pid, adopted, restarts.
    pub(crate) async fn ready(&mut self) -> (u32, bool, u32) {
        match self.wait_for(EnvoyState::is_ready).await {
            EnvoyState::Ready { pid, adopted, restarts } => (pid, adopted, restarts),
            state => panic!("{state:?}"),
        }
    }

    /// Waits for the end of a task.
    pub(crate) async fn failure(mut self) -> anyhow::Error {
        self.supervisor.failed().await
    }

    /// As SIGTERM does.
    pub(crate) async fn drain(self) {
        self.supervisor.drain().await;
    }

    /// As SIGKILL does: nothing of ours runs any more.
    pub(crate) fn die(self) {
        drop(self.supervisor);
    }
}

/// Completes when `done` says so.
pub(crate) async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !done() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    waited.await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[expect(clippy::disallowed_methods, reason = "where the caller has Envoy")]
pub(crate) fn binary() -> PathBuf {
    let path = std::env::var("ISTIO_VM_AGENT_ENVOY").expect("set ISTIO_VM_AGENT_ENVOY to an Envoy");
    assert!(
        Path::new(&path).is_file(),
        "ISTIO_VM_AGENT_ENVOY = {path}: no such file"
    );
    path.into()
}

pub(crate) fn membership() -> Membership {
    let config = json!({ "drainDuration": "45s", "terminationDrainDuration": "5s", "statusPort": 15020 });
    Membership {
        env: [("ISTIO_META_WORKLOAD_NAME".to_owned(), "productcatalog".to_owned())].into(),
        proxy_config: ProxyConfig(config.as_object().unwrap().clone()),
        roots_pem: String::new(),
        hosts: Vec::new(),
        token_file: None,
        spiffe_id: SpiffeId {
            trust_domain: "cluster.local".to_owned(),
            namespace: "onlineboutique".to_owned(),
            service_account: "productcatalog".to_owned(),
        },
        cluster_id: "Kubernetes".to_owned(),
        discovery_address: "istiod.istio-system.svc:15012".to_owned(),
        ca_address: "istiod.istio-system.svc:15012".to_owned(),
        node_name: "vm".to_owned(),
        instance_ips: vec![Ipv4Addr::new(10, 200, 0, 3).into()],
        inbound_ports: None,
        exclude_ports: Vec::new(),
        dns_capture: false,
        probe: None,
    }
}

/// What is logged.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

/// Serves xDS on `socket` for as long as it is kept.
fn istiod(host: &Host, socket: &Path) -> Supervisor {
    let listener = host.listen(socket, Some(ENVOY.gid)).unwrap();
    let mut supervisor = Supervisor::default();
    supervisor.spawn("istiod", PATIENCE, |_| async {
        let service = AggregatedDiscoveryServiceServer::new(Istiod);
        let server = tonic::transport::Server::builder().add_service(service);
        Ok(server.serve_with_incoming(UnixListenerStream::new(listener)).await?)
    });
    supervisor
}

/// An istiod of no cluster and one listener.
struct Istiod;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Istiod {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        _: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        Err(Status::unimplemented("Envoy's bootstrap asks for delta"))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let answers = request
            .into_inner()
            .filter_map(|request| Some(Ok(answer(&request.ok()?)?)));
        Ok(Response::new(Box::pin(answers)))
    }
}

fn answer(request: &DeltaDiscoveryRequest) -> Option<DeltaDiscoveryResponse> {
    // An answered one is an ACK, and asks for nothing.
    request.response_nonce.is_empty().then(|| DeltaDiscoveryResponse {
        type_url: request.type_url.clone(),
        nonce: "1".to_owned(),
        resources: if request.type_url == LISTENER {
            vec![inbound()]
        } else {
            Vec::new()
        },
        ..DeltaDiscoveryResponse::default()
    })
}

const LISTENER: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";

/// 15006 to the status port, with Istio's access log. Field numbers are those of envoy/config and
/// envoy/extensions.
fn inbound() -> Resource {
    let access_log = any(
        "envoy.extensions.access_loggers.file.v3.FileAccessLog",
        &text(1, "/dev/stdout"),
    );
    let access_log = [text(1, "envoy.access_loggers.file"), field(4, &access_log)].concat();
    let proxy = [text(1, "inbound"), text(2, "agent"), field(5, &access_log)].concat();
    let proxy = any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", &proxy);
    let filter = [text(1, "envoy.filters.network.tcp_proxy"), field(4, &proxy)].concat();
    let port = [number(3), varint(15006)].concat();
    let address = field(1, &[text(2, "0.0.0.0"), port].concat());
    let direction = [number(16), varint(1)].concat();
    let listener = [
        text(1, "virtualInbound"),
        field(2, &address),
        field(3, &field(3, &filter)),
        direction,
    ];
    Resource {
        name: "virtualInbound".to_owned(),
        version: "1".to_owned(),
        resource: Some(Any {
            type_url: LISTENER.to_owned(),
            value: listener.concat().into(),
        }),
    }
}

fn any(message: &str, value: &[u8]) -> Vec<u8> {
    [text(1, &format!("type.googleapis.com/{message}")), field(2, value)].concat()
}

fn text(tag: u64, value: &str) -> Vec<u8> {
    field(tag, value.as_bytes())
}

fn field(tag: u64, value: &[u8]) -> Vec<u8> {
    [varint(tag << 3 | 2), varint(value.len() as u64), value.to_vec()].concat()
}

fn number(tag: u64) -> Vec<u8> {
    varint(tag << 3)
}

fn varint(value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    prost::encoding::encode_varint(value, &mut bytes);
    bytes
}
