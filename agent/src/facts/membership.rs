//! Published by `join`: who this VM is in the mesh, and where the mesh is.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::duration;
use super::{OutboundCapture, Probe, SpiffeId};

/// All that a join source knows. Immutable; a refresh publishes a new one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Membership {
    /// cluster.env, verbatim, unknown keys included.
    pub env: BTreeMap<String, String>,
    /// The effective ProxyConfig: Istio's defaults under mesh.yaml's `defaultConfig`.
    pub proxy_config: ProxyConfig,
    /// PEM bundle that istiod's serving certificate is verified with.
    pub roots_pem: String,
    /// Lines for /etc/hosts, the control plane's address first of all.
    pub hosts: Vec<HostEntry>,
    /// The bootstrap token's file; read again for every call, never kept.
    pub token_file: Option<PathBuf>,
    /// SPIFFE ID that the certificate is for.
    pub spiffe_id: SpiffeId,
    /// `clusterid` header and node metadata CLUSTER_ID.
    pub cluster_id: String,
    /// The domain of the cluster's services, by which istiod completes their names.
    pub cluster_domain: String,
    /// `host:port` of the xDS server.
    pub discovery_address: String,
    /// `host:port` of the CA, the xDS server's unless cluster.env names another.
    pub ca_address: String,
    /// The VM's name in the mesh (the pod name in the node id), its short host name.
    pub node_name: String,
    /// Addresses of the VM in the mesh; the first one is what peers call.
    pub instance_ips: Vec<IpAddr>,
    /// Ports whose inbound TCP goes through Envoy; `None` is `*`, all but `exclude_ports`.
    pub inbound_ports: Option<Vec<u16>>,
    /// Ports that inbound `*` leaves alone.
    pub exclude_ports: Vec<u16>,
    /// Interfaces whose traffic goes past Envoy, in and out (ISTIO_EXCLUDE_INTERFACES).
    pub exclude_interfaces: Vec<String>,
    /// Outbound traffic that goes through Envoy.
    pub outbound: OutboundCapture,
    /// True where the agent answers DNS (ISTIO_META_DNS_CAPTURE).
    pub dns_capture: bool,
    /// The WorkloadGroup's probe, when it has one.
    pub probe: Option<Probe>,
    /// Settings of the bundle that this agent does not follow: each with its place and what takes its place.
    pub unheeded: Vec<String>,
}

impl Membership {
    /// True for IPv4, and for IPv6, when istiod gives Envoy listeners for calls over it: over IPv6 when all of the VM's
    /// addresses are, else over IPv4; over both only with ISTIO_DUAL_STACK.
    pub fn families(&self) -> (bool, bool) {
        let any = |v6: bool| self.instance_ips.iter().any(|ip| ip.is_ipv6() == v6);
        let dual = self.env.get("ISTIO_DUAL_STACK").map(String::as_str) == Some("true");
        (any(false) || !any(true), any(true) && (dual || !any(false)))
    }

    /// The node metadata of the environment. `ISTIO_META_X` is key X, cluster.env's above proxyMetadata's. The members of
    /// each `ISTIO_METAJSON_*` object are keys too: that is how labels come to stand at the top level, where EnvoyFilters
    /// look for them.
    pub fn node_metadata(&self) -> Map<String, Value> {
        let mut metadata = Map::new();
        for (key, value) in self.proxy_config.metadata().iter().chain(&self.env) {
            if let Some(key) = key.strip_prefix("ISTIO_META_") {
                metadata.insert(key.to_owned(), value.as_str().into());
            }
        }
        for (_, value) in self.env.iter().filter(|(key, _)| key.starts_with("ISTIO_METAJSON_")) {
            // `join` has judged them: what is no object is empty.
            metadata.extend(serde_json::from_str::<Map<String, Value>>(value).unwrap_or_default());
        }
        if let Some(address) = self.env.get("DNS_PROXY_ADDR").filter(|address| !address.is_empty()) {
            metadata.insert("DNS_PROXY_ADDR".to_owned(), address.as_str().into());
        }
        metadata
    }

    /// The WorkloadGroup that istiod registers this VM in; `None` where it does not register it.
    pub fn auto_register_group(&self) -> Option<String> {
        self.named("AUTO_REGISTER_GROUP")
    }

    /// The network that this VM is in; `None` where it has no name.
    pub fn network(&self) -> Option<String> {
        self.named("NETWORK")
    }

    fn named(&self, key: &str) -> Option<String> {
        let metadata = self.node_metadata();
        let name = metadata.get(key)?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }
}

/// One line of the bundle's `hosts` file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct HostEntry {
    /// Address.
    pub ip: IpAddr,
    /// Names it is known by.
    pub names: Vec<String>,
}

/// Istio's ProxyConfig as protojson, unknown fields kept, because istiod reads it from the node metadata.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ProxyConfig(pub Map<String, Value>);

impl ProxyConfig {
    /// A string field, `None` when absent or of another type.
    pub fn str(&self, field: &str) -> Option<&str> {
        self.0.get(field)?.as_str()
    }

    /// A port field.
    pub fn port(&self, field: &str) -> Option<u16> {
        u16::try_from(self.0.get(field)?.as_u64()?).ok()
    }

    /// A duration field, as protojson has it: seconds with a fraction and an `s` (`45s`, `1.5s`).
    pub fn duration(&self, field: &str) -> Option<Duration> {
        duration::parse(self.str(field)?)
    }

    /// `proxyMetadata`, string values only.
    pub fn metadata(&self) -> BTreeMap<String, String> {
        let Some(Value::Object(map)) = self.0.get("proxyMetadata") else {
            return BTreeMap::new();
        };
        map.iter()
            .filter_map(|(k, v)| Some((k.clone(), v.as_str()?.to_owned())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn durations_are_protojson() {
        let Value::Object(fields) = json!({"a": "45s", "b": "1.5s", "c": "1m", "d": "-1s", "e": 5, "f": "infs"}) else {
            unreachable!()
        };
        let config = ProxyConfig(fields);
        let read = ["a", "b", "c", "d", "e", "f", "absent"].map(|field| config.duration(field));
        assert_eq!(read[0], Some(Duration::from_secs(45)));
        assert_eq!(read[1], Some(Duration::from_millis(1500)));
        assert!(read[2..].iter().all(Option::is_none), "{read:?}");
    }
}
