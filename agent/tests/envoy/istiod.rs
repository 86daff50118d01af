//! An istiod of no cluster and one listener.

use std::path::Path;
use std::pin::Pin;

use istio_api::ads::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use istio_api::ads::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource};
use istio_api::rpc::Any;
use istio_vm_agent::host::Host;
use istio_vm_agent::supervise::Supervisor;
use kit::PATIENCE;
use tokio::sync::watch;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::vm::ENVOY;

/// Serves xDS for as long as it is kept.
pub(crate) struct Istiod {
    listeners: watch::Sender<bool>,
    _server: Supervisor,
}

impl Istiod {
    /// Serves on `socket`.
    pub(crate) fn new(host: &Host, socket: &Path) -> Self {
        let listeners = watch::Sender::new(true);
        let service = AggregatedDiscoveryServiceServer::new(Service {
            listeners: listeners.subscribe(),
        });
        let listener = host.listen(socket, Some(ENVOY.gid)).unwrap();
        let mut server = Supervisor::default();
        server.spawn("istiod", PATIENCE, |_| async {
            let server = tonic::transport::Server::builder().add_service(service);
            Ok(server.serve_with_incoming(UnixListenerStream::new(listener)).await?)
        });
        Self {
            listeners,
            _server: server,
        }
    }

    /// True while an Envoy that asks is given the listener; false: it waits for it.
    pub(crate) fn give_listeners(&self, give: bool) {
        self.listeners.send_replace(give);
    }
}

struct Service {
    listeners: watch::Receiver<bool>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Service {
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
        let listeners = self.listeners.clone();
        let answers = request.into_inner().filter_map(Result::ok).then(move |request| {
            let mut listeners = listeners.clone();
            async move {
                if request.type_url == LISTENER {
                    let _ = listeners.wait_for(|give| *give).await;
                }
                answer(&request)
            }
        });
        let answers = answers.filter_map(|answer| answer.map(Ok));
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
