//! Kubernetes objects: only the fields that count to the agent, all optional ones optional.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;

/// The metadata that every object carries.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Metadata {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// `networking.istio.io/v1 WorkloadGroup`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WorkloadGroup {
    pub(crate) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) spec: GroupSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GroupSpec {
    /// Metadata of the workloads, not of the group.
    #[serde(deserialize_with = "or_default")]
    pub(crate) metadata: WorkloadMetadata,
    #[serde(deserialize_with = "or_default")]
    pub(crate) template: Template,
    /// A ReadinessProbe, passed on as it is.
    pub(crate) probe: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct WorkloadMetadata {
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) annotations: BTreeMap<String, String>,
}

/// A WorkloadEntry without an address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Template {
    /// Numbers as they are written: the API server has no bounds for them.
    #[serde(deserialize_with = "or_default")]
    pub(crate) ports: BTreeMap<String, u32>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(crate) network: String,
    #[serde(deserialize_with = "or_default")]
    service_account: String,
}

impl WorkloadGroup {
    /// The one that the workloads run as; `default` is what Kubernetes means by none.
    pub(crate) fn service_account(&self) -> &str {
        match self.spec.template.service_account.as_str() {
            "" => "default",
            name => name,
        }
    }
}

/// `v1 ConfigMap`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ConfigMap {
    pub(crate) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) data: BTreeMap<String, String>,
}

/// `v1 Service`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Service {
    pub(crate) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    spec: ServiceSpec,
    #[serde(default, deserialize_with = "or_default")]
    status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct ServiceSpec {
    #[serde(rename = "externalIPs", deserialize_with = "or_default")]
    external_ips: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceStatus {
    #[serde(deserialize_with = "or_default")]
    load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancer {
    #[serde(deserialize_with = "or_default")]
    ingress: Vec<LoadBalancerIngress>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct LoadBalancerIngress {
    ip: Option<String>,
    hostname: Option<String>,
}

impl Service {
    /// Addresses and host names that lead to it from outside the cluster: those of its load balancer, else the
    /// external ones.
    pub(crate) fn outside(&self) -> Vec<&str> {
        let balanced: Vec<&str> = self
            .status
            .load_balancer
            .ingress
            .iter()
            .flat_map(|ingress| ingress.ip.as_deref().or(ingress.hostname.as_deref()))
            .filter(|address| !address.is_empty())
            .collect();
        match balanced.is_empty() {
            true => self.spec.external_ips.iter().map(String::as_str).collect(),
            false => balanced,
        }
    }
}

/// `authentication.k8s.io/v1 TokenRequest`, the answer.
#[derive(Deserialize)]
pub(super) struct TokenRequest {
    pub(super) status: TokenRequestStatus,
}

/// No `Debug`: it would show the token.
#[derive(Deserialize)]
pub(super) struct TokenRequestStatus {
    pub(super) token: String,
}

/// `v1 Status`: how the API server says no.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) message: String,
    pub(super) details: Option<StatusDetails>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct StatusDetails {
    pub(super) name: String,
    pub(super) kind: String,
}

/// `null` is as good as absent: Go writes it for empty lists and maps.
fn or_default<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
