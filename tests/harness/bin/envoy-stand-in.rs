//! Stands in for Envoy where there are too many VMs for real ones: asks the agent for clusters, listeners and secrets as
//! Envoy does, accepts what comes, and says on its admin socket that it serves.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::Request;
use hyper_util::rt::TokioIo;
use istio_api::ads::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::ads::{DeltaDiscoveryRequest, DiscoveryRequest, Node};
use istio_api::rpc::{ListValue, Struct, Value, value};
use istio_api::sds::SECRET;
use istio_api::sds::secret_discovery_service_client::SecretDiscoveryServiceClient;
use serde_json::Value as Json;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

const CLUSTERS: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
const LISTENERS: &str = "type.googleapis.com/envoy.config.listener.v3.Listener";
/// The bootstrap's `base_interval`.
const RETRY: Duration = Duration::from_millis(200);
/// Longest message, as Envoy has none.
const MAX_MESSAGE: usize = 64 << 20;

/// Responses accepted so far, for the admin interface.
static ACCEPTED: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let file = std::env::args().skip_while(|argument| argument != "-c").nth(1);
    let file = file.context("no -c BOOTSTRAP")?;
    let bootstrap: Json = serde_json::from_slice(&std::fs::read(&file).with_context(|| file.clone())?)?;
    let admin = bootstrap["admin"]["address"]["pipe"]["path"]
        .as_str()
        .context("no admin socket")?;
    let _ = std::fs::remove_file(admin);
    let admin = UnixListener::bind(admin)?;
    let (xds, sds) = (socket(&bootstrap, "xds-grpc")?, socket(&bootstrap, "sds-grpc")?);
    tokio::try_join!(
        async { Ok::<(), anyhow::Error>(axum::serve(admin, Router::new().fallback(answer)).await?) },
        forever(|| configuration(&xds, &bootstrap["node"])),
        forever(|| secret(&sds, &bootstrap["node"], "default")),
        forever(|| secret(&sds, &bootstrap["node"], "ROOTCA")),
    )?;
    Ok(())
}

async fn forever<F: Future<Output = Result<()>>>(ask: impl Fn() -> F) -> Result<()> {
    loop {
        // Who has gone away is asked again.
        let _ = ask().await;
        sleep(RETRY).await;
    }
}

/// Asks for clusters and listeners, and accepts each response.
async fn configuration(socket: &Path, node: &Json) -> Result<()> {
    let mut client =
        AggregatedDiscoveryServiceClient::new(connect(socket).await?).max_decoding_message_size(MAX_MESSAGE);
    let (requests, outbound) = mpsc::channel(4);
    for type_url in [CLUSTERS, LISTENERS] {
        let first = DeltaDiscoveryRequest {
            node: (type_url == CLUSTERS).then(|| identity(node)),
            type_url: type_url.to_owned(),
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(first).await?;
    }
    let mut responses = client
        .delta_aggregated_resources(ReceiverStream::new(outbound))
        .await?
        .into_inner();
    while let Some(response) = responses.message().await? {
        ACCEPTED[usize::from(response.type_url == LISTENERS)].fetch_add(1, Ordering::Relaxed);
        let accepted = DeltaDiscoveryRequest {
            type_url: response.type_url,
            response_nonce: response.nonce,
            ..DeltaDiscoveryRequest::default()
        };
        requests.send(accepted).await?;
    }
    Ok(())
}

/// Asks for a secret, and accepts each response.
async fn secret(socket: &Path, node: &Json, name: &str) -> Result<()> {
    let mut client = SecretDiscoveryServiceClient::new(connect(socket).await?);
    let (requests, outbound) = mpsc::channel(1);
    let mut request = DiscoveryRequest {
        node: Some(identity(node)),
        resource_names: vec![name.to_owned()],
        type_url: SECRET.to_owned(),
        ..DiscoveryRequest::default()
    };
    requests.send(request.clone()).await?;
    let mut responses = client.stream_secrets(ReceiverStream::new(outbound)).await?.into_inner();
    while let Some(response) = responses.message().await? {
        request.node = None;
        (request.version_info, request.response_nonce) = (response.version_info, response.nonce);
        requests.send(request.clone()).await?;
    }
    Ok(())
}

async fn connect(socket: &Path) -> Result<Channel> {
    let socket = socket.to_owned();
    let dial = tower::service_fn(move |_| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Ok(Endpoint::from_static("http://agent")
        .connect_with_connector(dial)
        .await?)
}

/// The questions that the agent and the metrics of its host have for Envoy.
async fn answer(request: Request) -> String {
    let [clusters, listeners] = ACCEPTED.each_ref().map(|count| count.load(Ordering::Relaxed));
    match request.uri().path() {
        "/stats" => format!(
            "cluster_manager.cds.update_success: {clusters}\nlistener_manager.lds.update_success: {listeners}\n\
             listener_manager.workers_started: 1\nserver.state: 0\n"
        ),
        "/server_info" => r#"{"version":"0/1.40.0/Clean/RELEASE/BoringSSL","state":"LIVE"}"#.to_owned(),
        _ => "OK\n".to_owned(),
    }
}

/// The socket behind a cluster of the bootstrap.
fn socket(bootstrap: &Json, cluster: &str) -> Result<PathBuf> {
    let clusters = bootstrap["static_resources"]["clusters"]
        .as_array()
        .into_iter()
        .flatten();
    let found = clusters.into_iter().find(|candidate| candidate["name"] == cluster);
    let endpoint = found.map(|found| &found["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]);
    let path = endpoint.and_then(|endpoint| endpoint["address"]["pipe"]["path"].as_str());
    path.map(PathBuf::from)
        .with_context(|| format!("cluster {cluster} leads to no socket"))
}

fn identity(node: &Json) -> Node {
    let text = |key: &str| node[key].as_str().unwrap_or_default().to_owned();
    Node {
        id: text("id"),
        cluster: text("cluster"),
        metadata: Some(fields(&node["metadata"])),
    }
}

fn fields(object: &Json) -> Struct {
    let entries = object.as_object().into_iter().flatten();
    Struct {
        fields: entries.map(|(name, value)| (name.clone(), converted(value))).collect(),
    }
}

fn converted(json: &Json) -> Value {
    let kind = match json {
        Json::Null => value::Kind::NullValue(0),
        Json::Bool(flag) => value::Kind::BoolValue(*flag),
        Json::Number(number) => value::Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Json::String(text) => value::Kind::StringValue(text.clone()),
        Json::Array(values) => value::Kind::ListValue(ListValue {
            values: values.iter().map(converted).collect(),
        }),
        Json::Object(_) => value::Kind::StructValue(fields(json)),
    };
    Value { kind: Some(kind) }
}
