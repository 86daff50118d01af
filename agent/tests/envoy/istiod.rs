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
use kit::wire::{Message, Value};
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
    let file = [(1, "/dev/stdout".into())];
    let file = any("envoy.extensions.access_loggers.file.v3.FileAccessLog", file);
    let access_log = [(1, "envoy.access_loggers.file".into()), (4, file)];
    let proxy = [(1, "inbound".into()), (2, "agent".into()), (5, access_log.into())];
    let proxy = any("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy", proxy);
    let filter = [(1, "envoy.filters.network.tcp_proxy".into()), (4, proxy)];
    let address = [(2, "0.0.0.0".into()), (3, 15006.into())];
    let listener = Message(vec![
        (1, "virtualInbound".into()),
        (2, [(1, address.into())].into()),
        (3, [(3, filter.into())].into()),
        (16, 1.into()),
    ]);
    Resource {
        name: "virtualInbound".to_owned(),
        version: "1".to_owned(),
        resource: Some(Any {
            type_url: LISTENER.to_owned(),
            value: listener.encode().into(),
        }),
    }
}

fn any<const N: usize>(message: &str, value: [(u32, Value); N]) -> Value {
    let type_url = format!("type.googleapis.com/{message}");
    [(1, type_url.as_str().into()), (2, value.into())].into()
}
