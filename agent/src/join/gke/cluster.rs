//! What the Kubernetes Engine API says of a cluster (container.googleapis.com v1, `Cluster`), as far as it counts here.

use anyhow::{Context, Result, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::config::{GkeEndpoint, KeyOrigin};
use crate::web::Trust;

/// A cluster's own description. Google leaves out what is empty or false.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Cluster {
    name: String,
    status: String,
    status_message: String,
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

/// A way in: where, and who vouches for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct ApiEndpoint {
    pub(super) kind: GkeEndpoint,
    /// `https://host`
    pub(super) server: String,
    /// PEM; absent: whom every system trusts.
    ca: Option<String>,
}

impl ApiEndpoint {
    pub(super) fn trust(&self, cluster: &str) -> Trust {
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
    pub(super) fn parse(text: &str) -> Result<Self> {
        let cluster: Self = serde_json::from_str(text)?;
        ensure!(!cluster.status.is_empty(), "it has no status");
        Ok(cluster)
    }

    /// All ways in of the kind wanted, the best first. An error says why there is none.
    pub(super) fn endpoints(&self, wanted: GkeEndpoint, keys: KeyOrigin) -> Result<Vec<ApiEndpoint>> {
        self.check_status(keys)?;
        let ca = self.ca()?;
        let by_address = |kind, address: Option<&str>| {
            let server = server(address?)?;
            let ca = Some(ca.clone());
            Some(ApiEndpoint { kind, server, ca })
        };
        let dns = self
            .control_plane_endpoints_config
            .dns_endpoint_config
            .open()
            .and_then(server);
        let endpoints = [
            by_address(GkeEndpoint::Private, self.private()),
            by_address(GkeEndpoint::Public, self.public()),
            dns.map(|server| ApiEndpoint {
                kind: GkeEndpoint::Dns,
                server,
                ca: None,
            }),
        ];
        let endpoints: Vec<ApiEndpoint> = endpoints.into_iter().flatten().collect();
        let fitting: Vec<ApiEndpoint> = endpoints
            .iter()
            .filter(|endpoint| wanted == GkeEndpoint::Auto || endpoint.kind == wanted)
            .cloned()
            .collect();
        if fitting.is_empty() {
            let kinds: Vec<String> = endpoints.iter().map(|endpoint| endpoint.kind.to_string()).collect();
            let has = if kinds.is_empty() {
                "none".to_owned()
            } else {
                kinds.join(", ")
            };
            let remedy = match wanted {
                GkeEndpoint::Dns => " (open it by `gcloud container clusters update --enable-dns-access`)",
                _ => "",
            };
            bail!(
                "cluster {} has no {wanted} endpoint that is open, only: {has}{remedy}; set {}",
                self.name,
                keys.name("endpoint")
            );
        }
        Ok(fitting)
    }

    fn check_status(&self, keys: KeyOrigin) -> Result<()> {
        let remedy = match self.status.as_str() {
            // An upgrade, and a part that wants care: the API server answers.
            "RUNNING" | "RECONCILING" | "DEGRADED" => return Ok(()),
            "PROVISIONING" => "it is being made; this VM joins when it is there".to_owned(),
            "STOPPING" => format!("it is being deleted: name another one in {}", keys.name("cluster")),
            _ => "look at it with `gcloud container clusters describe`".to_owned(),
        };
        let why = if self.status_message.is_empty() { "" } else { ": " };
        bail!(
            "cluster {} is {}{why}{}: {remedy}",
            self.name,
            self.status,
            self.status_message
        )
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
mod tests;
