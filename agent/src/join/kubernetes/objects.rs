//! The Kubernetes objects that a membership is made of: only the fields that count, all optional ones optional.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Deserializer;
use serde_json::Value;

/// What every object carries.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) resource_version: String,
    #[serde(deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// `networking.istio.io/v1 WorkloadGroup`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct WorkloadGroup {
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) spec: GroupSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct GroupSpec {
    /// Of the workloads, not of the group.
    #[serde(deserialize_with = "or_default")]
    pub(super) metadata: WorkloadMetadata,
    #[serde(deserialize_with = "or_default")]
    pub(super) template: Template,
    /// A ReadinessProbe, passed on as it is.
    pub(super) probe: Option<Value>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct WorkloadMetadata {
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) annotations: BTreeMap<String, String>,
}

/// A WorkloadEntry without an address.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Template {
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: BTreeMap<String, u16>,
    #[serde(deserialize_with = "or_default")]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "or_default")]
    pub(super) network: String,
    #[serde(deserialize_with = "or_default")]
    service_account: String,
}

impl WorkloadGroup {
    /// The one that the workloads run as; `default` is what Kubernetes means by none.
    pub(super) fn service_account(&self) -> &str {
        match self.spec.template.service_account.as_str() {
            "" => "default",
            name => name,
        }
    }
}

/// `v1 ConfigMap`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct ConfigMap {
    pub(super) metadata: Metadata,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) data: BTreeMap<String, String>,
}

/// `v1 Service`.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Service {
    pub(super) metadata: Metadata,
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
    pub(super) fn outside(&self) -> Vec<&str> {
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
