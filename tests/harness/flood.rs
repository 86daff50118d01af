//! Floods of a client that takes more than its share: so many connections, which stay until what is returned is
//! dropped.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use hyper_util::rt::TokioIo;
use istio_api::ads::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::ads::{DeltaDiscoveryRequest, DiscoveryRequest};
use istio_api::sds::SECRET;
use istio_api::sds::secret_discovery_service_client::SecretDiscoveryServiceClient;
use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_res_gid, set_thread_res_uid};
use tokio::net::UnixStream;
use tokio::runtime::Runtime;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Streaming};

/// Envoy's user and group.
const PROXY: u32 = 1337;
const NOBODY: u32 = 65534;
/// Longest wait for a connection, which a full listener lets wait.
const SHORT: Duration = Duration::from_millis(200);
/// Of streams on one connection.
const STREAMS: usize = 8;

/// Connections that each send `head`, and then as many of `more` as are taken at once.
pub fn connections(to: SocketAddr, count: usize, head: &[u8], more: &[u8]) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..count {
        let Ok(mut stream) = TcpStream::connect_timeout(&to, SHORT) else {
            continue;
        };
        let _ = stream.set_nonblocking(true);
        let mut sent = stream.write_all(head);
        // 4 MiB: ten times what hyper reads ahead by default.
        for _ in 0..(4_usize << 20).checked_div(more.len()).unwrap_or_default() {
            sent = sent.and_then(|()| stream.write_all(more));
        }
        held.push(stream);
    }
    held
}

/// Queries of one name each, all for names that nobody has asked for.
pub fn queries(to: SocketAddr, count: u16) -> Result<()> {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any)?;
    for id in 0..count {
        let label = format!("n{id}");
        // RFC 1035, section 4.1: recursion wanted, one question, for an A record of the Internet.
        let mut query = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
        for label in [label.as_str(), "example", "com"] {
            query.push(u8::try_from(label.len())?);
            query.extend(label.as_bytes());
        }
        query.extend([0, 0, 1, 0, 1]);
        // A refusal of an earlier one (ICMP) is told here.
        let _ = socket.send_to(&query, to);
    }
    Ok(())
}

/// Makes this thread a user's without rights.
pub fn become_nobody() -> Result<()> {
    become_(NOBODY)
}

/// For good.
fn become_(id: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    set_thread_res_gid(gid, gid, gid)?;
    Ok(set_thread_res_uid(uid, uid, uid)?)
}

/// Streams of Envoy's user, whose answers nobody reads. They, and their thread, are that user's.
#[derive(Debug)]
pub struct Streams<T> {
    _answers: Vec<Streaming<T>>,
    _runtime: Runtime,
}

/// Streams for secrets, each for so many spellings of one file.
pub fn secrets(socket: &Path, connections: usize, file: &Path) -> Result<Streams<istio_api::ads::DiscoveryResponse>> {
    const SPELLINGS: usize = 1000;
    let names = (0..SPELLINGS).map(|count| format!("file-root:{}{}", "/".repeat(count), file.display()));
    let request = DiscoveryRequest {
        type_url: SECRET.to_owned(),
        resource_names: names.collect(),
        ..DiscoveryRequest::default()
    };
    streams(socket, connections, async move |channel| {
        let mut client = SecretDiscoveryServiceClient::new(channel);
        let questions = tokio_stream::StreamExt::chain(tokio_stream::once(request.clone()), tokio_stream::pending());
        Ok(client.stream_secrets(Request::new(questions)).await?.into_inner())
    })
}

/// Streams for configuration, each with so many names as one message may have.
pub fn configuration(socket: &Path, connections: usize) -> Result<Streams<istio_api::ads::DeltaDiscoveryResponse>> {
    const NAMES: usize = 30_000;
    let request = DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/envoy.config.cluster.v3.Cluster".to_owned(),
        resource_names_subscribe: (0..NAMES).map(|count| format!("{count:0100}")).collect(),
        ..DeltaDiscoveryRequest::default()
    };
    streams(socket, connections, async move |channel| {
        let mut client = AggregatedDiscoveryServiceClient::new(channel);
        let questions = tokio_stream::iter(vec![request.clone(); 4]);
        Ok(client
            .delta_aggregated_resources(Request::new(questions))
            .await?
            .into_inner())
    })
}

/// Streams that are held; refused ones are left out: that others are served is the case's to see.
fn streams<T>(
    socket: &Path,
    connections: usize,
    open: impl AsyncFn(Channel) -> Result<Streaming<T>>,
) -> Result<Streams<T>> {
    become_(PROXY)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let answers = runtime.block_on(async {
        let mut answers = Vec::new();
        for _ in 0..connections {
            let Ok(channel) = dial(socket.to_owned()).await else {
                continue;
            };
            for _ in 0..STREAMS {
                let opened = tokio::time::timeout(SHORT, open(channel.clone())).await;
                answers.extend(opened.ok().and_then(Result::ok));
            }
        }
        answers
    });
    Ok(Streams {
        _answers: answers,
        _runtime: runtime,
    })
}

async fn dial(socket: PathBuf) -> Result<Channel> {
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    let endpoint = Endpoint::from_static("http://agent").connect_timeout(SHORT);
    Ok(endpoint.connect_with_connector(dial).await?)
}
