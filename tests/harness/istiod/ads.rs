//! Aggregated discovery: what delta and state of the world have in common.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use istio_api::ads::aggregated_discovery_service_server::AggregatedDiscoveryService;
use istio_api::ads::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, HEALTH_INFORMATION, Node,
};
use istio_api::rpc::{Status as RpcStatus, value};
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::caller::Caller;
use super::state::{Fault, Service, State};
use super::{delta, sotw};

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The service.
#[derive(Debug)]
pub(super) struct Ads {
    pub(super) state: Arc<State>,
    /// False once this istiod is killed.
    pub(super) alive: Arc<AtomicBool>,
}

#[async_trait]
impl AggregatedDiscoveryService for Ads {
    type DeltaAggregatedResourcesStream = Responses<DeltaDiscoveryResponse>;
    type StreamAggregatedResourcesStream = Responses<DiscoveryResponse>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let session = Session::new(self, &request)?;
        let (responses, outbound) = mpsc::channel(1);
        tokio::spawn(delta::serve(session, request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let session = Session::new(self, &request)?;
        let (responses, outbound) = mpsc::channel(1);
        tokio::spawn(sotw::serve(session, request.into_inner(), responses));
        Ok(Response::new(Box::pin(ReceiverStream::new(outbound))))
    }
}

/// One stream: who it is, and what it was told last.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) state: Arc<State>,
    alive: Arc<AtomicBool>,
    caller: Caller,
    /// The name of its WorkloadEntry, once registered.
    entry: Option<String>,
    opened: bool,
    nonces: u64,
}

/// Purpose of a request.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Asks {
    /// To be subscribed, or nothing but an answer to a response.
    Resources,
    /// Nothing.
    Nothing,
}

impl Session {
    fn new<T>(ads: &Ads, request: &Request<T>) -> Result<Self, Status> {
        let state = &ads.state;
        if state.fault(Service::Ads) == Some(Fault::Refuse) {
            return Err(Status::unavailable("told to refuse"));
        }
        let (caller, _) = state.authenticate(request)?;
        state.record_stream();
        Ok(Self {
            state: Arc::clone(state),
            alive: Arc::clone(&ads.alive),
            caller,
            entry: None,
            opened: false,
            nonces: 0,
        })
    }

    /// Takes note of the parts of a request that have nothing to do with resources.
    pub(super) fn take(
        &mut self,
        node: Option<&Node>,
        type_url: &str,
        nonce: &str,
        error: Option<RpcStatus>,
    ) -> Result<Asks, Status> {
        if type_url == HEALTH_INFORMATION {
            // Before the first normal request istiod doesn't know whose health it is.
            if let Some(entry) = &self.entry {
                self.state.record_health(entry, error.map(|status| status.message));
            }
            return Ok(Asks::Nothing);
        }
        if !self.opened {
            self.register(node.ok_or_else(|| Status::invalid_argument("the first request has no node"))?)?;
            self.opened = true;
        }
        if !nonce.is_empty() {
            self.state.record_answer(type_url, error.map(|status| status.message));
        }
        Ok(Asks::Resources)
    }

    fn register(&mut self, node: &Node) -> Result<(), Status> {
        let claims = (metadata(node, "NAMESPACE"), metadata(node, "SERVICE_ACCOUNT"));
        if claims != (Some(&self.caller.namespace), Some(&self.caller.service_account)) {
            let caller = &self.caller;
            return Err(Status::permission_denied(format!(
                "{caller} says that it is {claims:?}"
            )));
        }
        let Some(group) = metadata(node, "AUTO_REGISTER_GROUP") else {
            return Ok(());
        };
        let addresses = metadata(node, "INSTANCE_IPS").map_or("", String::as_str);
        let address = addresses.split(',').next().unwrap_or_default();
        let network = metadata(node, "NETWORK").filter(|network| !network.is_empty());
        let network = network.map_or_else(String::new, |network| format!("-{network}"));
        let name = format!("{group}-{}{network}", address.replace(':', "-"));
        let health_checked = field(node, "PROXY_CONFIG").is_some_and(has_probe);
        self.state.connect(&name, address, &self.caller, health_checked);
        self.entry = Some(name);
        Ok(())
    }

    pub(super) fn next_nonce(&mut self) -> String {
        self.nonces += 1;
        format!("e2e-{}", self.nonces)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            self.state.disconnect(entry, self.alive.load(Ordering::SeqCst));
        }
    }
}

fn metadata<'a>(node: &'a Node, key: &str) -> Option<&'a String> {
    match field(node, key)? {
        value::Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

fn field<'a>(node: &'a Node, key: &str) -> Option<&'a value::Kind> {
    node.metadata.as_ref()?.fields.get(key)?.kind.as_ref()
}

/// True when a ProxyConfig has a readiness probe, by which istiod waits for the VM's word that it is healthy.
fn has_probe(proxy_config: &value::Kind) -> bool {
    matches!(proxy_config, value::Kind::StructValue(config) if config.fields.contains_key("readinessProbe"))
}
