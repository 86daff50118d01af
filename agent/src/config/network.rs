//! `[network]`.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{Checks, mesh_address};
use crate::facts::is_host_name;

/// Kubernetes' own limit for a name.
const LONGEST_NAME: usize = 253;
/// Kubernetes' own domain.
const CLUSTER_DOMAIN: &str = "cluster.local";

/// `[network]`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NetworkConfig {
    /// The address peers call; absent: the source address of the route to the control plane.
    pub address: Option<IpAddr>,
    /// The VM's name in the mesh; absent: its short host name.
    pub name: Option<String>,
    /// The domain of the cluster's services; absent: cluster.local.
    pub cluster_domain: Option<String>,
    /// Names that a bundle may put into /etc/hosts beside those of istiod.
    pub hosts_allow: Vec<String>,
}

impl NetworkConfig {
    /// The domain of the cluster's services.
    pub fn cluster_domain(&self) -> &str {
        self.cluster_domain.as_deref().unwrap_or(CLUSTER_DOMAIN)
    }

    pub(super) fn checks(&self) -> Checks {
        let address = self.address.map(|address| {
            mesh_address::check(address).map_err(|problem| format!("network.address = \"{address}\": {problem}"))
        });
        let name = self
            .name
            .as_ref()
            .map(|name| check_name(name).map_err(|problem| format!("network.name = {name:?}: {problem}")));
        let names = self.hosts_allow.iter().map(|name| match is_host_name(name) {
            true => Ok(()),
            false => Err(format!(
                "network.hosts_allow: {name:?} is no host name, such as \"ca.example.com\""
            )),
        });
        let domain = self.cluster_domain.as_deref().map(check_domain);
        address.into_iter().chain(name).chain(domain).chain(names).collect()
    }
}

/// Fails for what is no domain: it becomes a part of the node id, and of names that are looked up.
fn check_domain(domain: &str) -> Result<(), String> {
    let problem = match domain {
        _ if !is_host_name(domain) || domain.contains('_') => "is no domain",
        domain if domain.contains(|c: char| c.is_ascii_uppercase()) => "has capitals, which no cluster's domain has",
        domain if domain.starts_with("svc.") || domain.contains(".svc.") => "is more than the domain",
        _ => return Ok(()),
    };
    Err(format!(
        "network.cluster_domain = {domain:?}: {problem}: write what stands after \"svc.\" in a service's full name, such as \
         \"{CLUSTER_DOMAIN}\""
    ))
}

/// The VM's name in the mesh becomes a part of the node id, where `~` and blanks would end it, and of objects' names.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    match (1..=LONGEST_NAME).contains(&name.len()) && name.bytes().all(is_valid) {
        true => Ok(()),
        false => Err(format!(
            "can't be the VM's name in the mesh: it has 1 to {LONGEST_NAME} letters, digits, '.', '-' and '_'"
        )),
    }
}
