//! Who this VM is in the mesh, as `status` tells it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::facts::Membership;

/// Identity card of the VM.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Card {
    /// Name in the mesh.
    name: String,
    /// The address that peers call.
    address: Option<IpAddr>,
    /// Namespace.
    namespace: String,
    /// WorkloadGroup that the VM registers itself in; absent: it doesn't register itself.
    workload_group: Option<String>,
    /// Service account.
    service_account: String,
    /// Trust domain.
    trust_domain: String,
    /// Cluster of the control plane.
    cluster: String,
    /// Network; absent: the one that istiod takes VMs without a name for.
    network: Option<String>,
    /// Ports whose calls go through Envoy; absent: all.
    ports: Option<Vec<u16>>,
}

impl From<&Membership> for Card {
    fn from(membership: &Membership) -> Self {
        Self {
            name: membership.node_name.clone(),
            address: membership.instance_ips.first().copied(),
            namespace: membership.spiffe_id.namespace.clone(),
            workload_group: membership.auto_register_group(),
            service_account: membership.spiffe_id.service_account.clone(),
            trust_domain: membership.spiffe_id.trust_domain.clone(),
            cluster: membership.cluster_id.clone(),
            network: membership.network(),
            ports: membership.inbound_ports.clone(),
        }
    }
}

impl Card {
    /// Two lines: where it is, and what it is called for.
    pub(super) fn lines(&self) -> Vec<String> {
        let Self {
            name,
            namespace,
            service_account,
            cluster,
            ..
        } = self;
        let address = self
            .address
            .map_or_else(|| "no address".to_owned(), |ip| ip.to_string());
        let group = match &self.workload_group {
            Some(group) => format!("WorkloadGroup {namespace}/{group}"),
            None => format!("namespace {namespace}, in no WorkloadGroup"),
        };
        let network = match &self.network {
            Some(network) => format!("network {network}"),
            None => "network not set".to_owned(),
        };
        let ports = match self.ports.as_deref() {
            None => "every port".to_owned(),
            Some([]) => "no port".to_owned(),
            Some(ports) => {
                let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
                format!("port {}", ports.join(", "))
            }
        };
        vec![
            format!("{name} at {address}, {group}, cluster {cluster}, {network}"),
            format!("called on {ports}, as service account {service_account}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::membership;

    #[test]
    fn card_tells_who_the_vm_is() {
        let mut member = Membership {
            inbound_ports: Some(vec![3550, 8080]),
            instance_ips: vec!["10.0.0.3".parse().unwrap()],
            cluster_id: "Kubernetes".to_owned(),
            ..membership()
        };
        let group = "ISTIO_META_AUTO_REGISTER_GROUP".to_owned();
        member.env = [
            (group, "catalog".to_owned()),
            ("ISTIO_META_NETWORK".to_owned(), String::new()),
        ]
        .into();
        let namespace = &member.spiffe_id.namespace;
        let lines = Card::from(&member).lines();
        let expected = format!(
            "{} at 10.0.0.3, WorkloadGroup {namespace}/catalog, cluster Kubernetes, network not set",
            member.node_name
        );
        assert_eq!(lines[0], expected);
        // A mesh may say it for all.
        let group = member.env.remove("ISTIO_META_AUTO_REGISTER_GROUP");
        let metadata = serde_json::json!({"ISTIO_META_AUTO_REGISTER_GROUP": group, "ISTIO_META_NETWORK": "hidden"});
        member.proxy_config.0.insert("proxyMetadata".to_owned(), metadata);
        assert_eq!(Card::from(&member).lines()[0], expected);
        assert!(
            lines[1].starts_with("called on port 3550, 8080, as service account "),
            "{lines:?}"
        );
    }
}
