//! A GKE cluster as the Kubernetes Engine API describes it (container.googleapis.com v1, `Cluster`), as far as it counts
//! here: its status, and the ways to its API server.

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::config::GkeEndpoint;
use crate::web::Trust;

/// A cluster's own description. Google leaves out what is empty or false.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Cluster {
    pub(crate) name: String,
    /// State of the cluster, such as RUNNING.
    pub(crate) status: String,
    /// Google's words about the status; empty where there are none.
    pub(crate) status_message: String,
    /// The address that kubectl is given: public, or private when there is no public one.
    endpoint: String,
    master_auth: MasterAuth,
    private_cluster_config: Addresses,
    control_plane_endpoints_config: Endpoints,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct MasterAuth {
    /// PEM in base64.
    cluster_ca_certificate: String,
}

/// `PrivateClusterConfig`, and `IPEndpointsConfig`, which took its place.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Addresses {
    enabled: Option<bool>,
    enable_public_endpoint: Option<bool>,
    enable_private_endpoint: bool,
    public_endpoint: String,
    private_endpoint: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Endpoints {
    dns_endpoint_config: DnsEndpoint,
    ip_endpoints_config: Addresses,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct DnsEndpoint {
    endpoint: String,
    allow_external_traffic: bool,
}

/// A way to the cluster's API server: where, and who vouches for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ApiEndpoint {
    pub(crate) kind: GkeEndpoint,
    /// `https://host`
    pub(crate) server: String,
    /// PEM; absent: whom every system trusts.
    ca: Option<String>,
}

impl ApiEndpoint {
    pub(crate) fn trust(&self, cluster: &str) -> Trust {
        match &self.ca {
            Some(pem) => Trust::Roots {
                pem: pem.clone(),
                place: format!("masterAuth of {cluster}"),
            },
            None => Trust::System,
        }
    }
}

impl Cluster {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let cluster: Self = serde_json::from_str(text)?;
        ensure!(!cluster.status.is_empty(), "it has no status");
        Ok(cluster)
    }

    /// All ways in that are open, the best first.
    pub(crate) fn endpoints(&self) -> Result<Vec<ApiEndpoint>> {
        let ca = self.ca()?;
        let by_address = |kind, address: Option<&str>| {
            let server = server(address?)?;
            let ca = Some(ca.clone());
            Some(ApiEndpoint { kind, server, ca })
        };
        let dns = &self.control_plane_endpoints_config.dns_endpoint_config;
        let endpoints = [
            by_address(GkeEndpoint::Private, self.private()),
            by_address(GkeEndpoint::Public, self.public()),
            dns.open().and_then(server).map(|server| ApiEndpoint {
                kind: GkeEndpoint::Dns,
                server,
                ca: None,
            }),
        ];
        Ok(endpoints.into_iter().flatten().collect())
    }

    fn private(&self) -> Option<&str> {
        let new = &self.control_plane_endpoints_config.ip_endpoints_config;
        let old = &self.private_cluster_config;
        first([new.private_endpoint.as_str(), &old.private_endpoint]).filter(|_| new.enabled != Some(false))
    }

    fn public(&self) -> Option<&str> {
        let new = &self.control_plane_endpoints_config.ip_endpoints_config;
        let old = &self.private_cluster_config;
        let closed = [new.enabled, new.enable_public_endpoint].contains(&Some(false)) || old.enable_private_endpoint;
        let general = Some(self.endpoint.as_str()).filter(|address| self.private() != Some(address));
        first([
            new.public_endpoint.as_str(),
            &old.public_endpoint,
            general.unwrap_or_default(),
        ])
        .filter(|_| !closed)
    }

    fn ca(&self) -> Result<String> {
        let encoded: String = self.master_auth.cluster_ca_certificate.split_whitespace().collect();
        let what = || {
            format!(
                "cluster {}: masterAuth.clusterCaCertificate is no certificate in base64",
                self.name
            )
        };
        let pem = STANDARD.decode(encoded).with_context(what)?;
        let pem = String::from_utf8(pem).with_context(what)?;
        ensure!(pem.contains("-----BEGIN CERTIFICATE-----"), what());
        Ok(pem)
    }
}

impl DnsEndpoint {
    fn open(&self) -> Option<&str> {
        first([&self.endpoint]).filter(|_| self.allow_external_traffic)
    }
}

fn first<'a>(addresses: impl IntoIterator<Item = &'a (impl AsRef<str> + ?Sized + 'a)>) -> Option<&'a str> {
    addresses
        .into_iter()
        .map(AsRef::as_ref)
        .find(|address| !address.is_empty())
}

/// The URL of a host; `None` for what is none.
fn server(host: &str) -> Option<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:".contains(&byte);
    let valid = host.bytes().all(allowed);
    valid.then(|| format!("https://{host}"))
}

#[cfg(test)]
pub(crate) mod tests;
