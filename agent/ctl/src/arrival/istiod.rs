//! Questions to istiod about its proxies, as a service account of their namespace.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use futures_util::StreamExt as _;
use istio_api::ads::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::ads::{DEBUG, DiscoveryRequest, Node};
use istio_api::rpc::{Struct, Value, value::Kind as ValueKind};
use serde_json::json;
use tonic::Request;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use crate::cluster::Cluster;
use crate::migration::{Migration, Name};
use crate::names;
use crate::objects::{Kind, MANAGER};

/// The service account that every namespace has.
const ACCOUNT: &str = "default";
/// The audience that istiod asks of a token (TOKEN_AUDIENCES).
const AUDIENCE: &str = "istio-ca";
/// The life of a token, the shortest that Kubernetes gives.
const LIFE: Duration = Duration::from_secs(600);
/// The ConfigMap that istiod writes into every namespace (istio/pkg/config/constants).
const ROOT: Kind = Kind {
    api: "v1",
    plural: "configmaps",
};
/// The name in istiod's certificate.
const SERVER_NAME: &str = "istiod.istio-system.svc";
/// Time for one connection and for one answer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Time for TCP of a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// Largest answer, in bytes: the routes of a large mesh.
const MAX_RESPONSE: usize = 64 << 20;
/// Most that is shown of an answer that is none, in characters.
const MAX_WORD: usize = 300;
/// Questions at once.
const AT_ONCE: usize = 16;

/// The istiod of a cluster, for the proxies of one namespace.
pub(super) struct Istiod<'a> {
    cluster: &'a Cluster,
    namespace: &'a Name,
    domain: &'a str,
    endpoint: Endpoint,
    /// Marked as sensitive, so that `Debug` doesn't show it.
    authorization: MetadataValue<Ascii>,
}

impl<'a> Istiod<'a> {
    /// Gets a token and the root; `address` is `host:port`.
    pub(super) async fn of(
        cluster: &'a Cluster,
        namespace: &'a Name,
        address: &str,
        migration: &'a Migration,
    ) -> Result<Self> {
        let path = format!("/api/v1/namespaces/{namespace}/serviceaccounts/{ACCOUNT}/token");
        let spec = json!({ "audiences": [AUDIENCE], "expirationSeconds": LIFE.as_secs() });
        let body = json!({ "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec });
        let what = format!("create a token of service account {namespace}/{ACCOUNT}");
        let answer = cluster.ask(&what, &path, &body).await?;
        let token = answer["status"]["token"]
            .as_str()
            .context("an answer without a token")?;
        let mut authorization: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| anyhow!("cluster {}: a token that is no text", cluster.name()))?;
        authorization.set_sensitive(true);
        let map = cluster.get(ROOT, namespace.as_str(), "istio-ca-root-cert").await?;
        let root = map.as_ref().and_then(|map| map["data"]["root-cert.pem"].as_str());
        let root = root.with_context(|| {
            format!(
                "cluster {}: ConfigMap {namespace}/istio-ca-root-cert has no root-cert.pem",
                cluster.name()
            )
        })?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(root))
            .domain_name(SERVER_NAME);
        let about = || format!("cluster {}: istiod = {address:?}", cluster.name());
        let endpoint = Endpoint::from_shared(format!("https://{address}")).with_context(about)?;
        Ok(Self {
            cluster,
            namespace,
            domain: migration.cluster_domain.as_str(),
            endpoint: endpoint.tls_config(tls).with_context(about)?,
            authorization,
        })
    }

    pub(super) fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    pub(super) fn namespace(&self) -> &'a Name {
        self.namespace
    }

    /// Dumps of what istiod has given to each proxy, over one new connection.
    pub(super) async fn dumps(
        &self,
        proxies: Vec<String>,
        resource_type: &str,
    ) -> Vec<(String, Result<serde_json::Value>)> {
        // The time for TCP alone is the connector's: one that hangs accepts and then says nothing in TLS.
        let mut connector = names::connector();
        connector.set_connect_timeout(Some(CONNECT));
        let connected = tokio::time::timeout(DEADLINE, self.endpoint.connect_with_connector(connector)).await;
        let connected = connected.map_err(|_| anyhow!("istiod accepts, and doesn't answer"));
        let channel = match connected.and_then(|connected| connected.context("failed to connect to istiod")) {
            Ok(channel) => channel,
            Err(error) => {
                let told = |name| (name, Err(anyhow!("{error:#}")));
                return proxies.into_iter().map(told).collect();
            }
        };
        let asked = proxies.into_iter().map(|name| {
            let channel = channel.clone();
            async move {
                let answer = tokio::time::timeout(DEADLINE, self.dump(channel, &name, resource_type)).await;
                let answer = answer.unwrap_or_else(|_| Err(anyhow!("no answer of istiod")));
                (name, answer)
            }
        });
        futures_util::stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await
    }

    async fn dump(&self, channel: Channel, proxy: &str, resource_type: &str) -> Result<serde_json::Value> {
        let question = DiscoveryRequest {
            node: Some(self.node()),
            type_url: DEBUG.to_owned(),
            resource_names: vec![format!("config_dump?proxyID={proxy}&types={resource_type}")],
            ..DiscoveryRequest::default()
        };
        // istiod ends the stream with the requests.
        let questions = futures_util::stream::iter([question]).chain(futures_util::stream::pending());
        let mut request = Request::new(questions);
        let metadata = request.metadata_mut();
        metadata.insert("authorization", self.authorization.clone());
        metadata.insert("clusterid", self.cluster.name().parse()?);
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(MAX_RESPONSE);
        let answered = async {
            client
                .stream_aggregated_resources(request)
                .await?
                .into_inner()
                .message()
                .await
        };
        let answer = answered
            .await
            .map_err(|status| anyhow!("istiod says: {}", status.message()))?;
        let resource = answer.and_then(|answer| answer.resources.into_iter().next());
        let bytes = resource.context("istiod has no answer")?.value;
        // What is no document is istiod's word on why there is none, such as a proxy of another istiod.
        serde_json::from_slice(&bytes).map_err(|_| {
            let word: String = String::from_utf8_lossy(&bytes).chars().take(MAX_WORD).collect();
            anyhow!("istiod says: {}", word.trim())
        })
    }

    /// A node that is no proxy to be configured.
    fn node(&self) -> Node {
        let (namespace, domain) = (self.namespace, self.domain);
        let text = |key: &str, text: &str| {
            let kind = Some(ValueKind::StringValue(text.to_owned()));
            (key.to_owned(), Value { kind })
        };
        let fields = [
            text("NAMESPACE", namespace.as_str()),
            text("SERVICE_ACCOUNT", ACCOUNT),
            text("CLUSTER_ID", self.cluster.name()),
        ];
        Node {
            id: format!("sidecar~127.0.0.1~{MANAGER}.{namespace}~{namespace}.svc.{domain}"),
            metadata: Some(Struct { fields: fields.into() }),
            ..Node::default()
        }
    }
}
