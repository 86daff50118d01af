//! `join.gke`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::https::https_url;
use super::kubernetes::{default_cluster_id, default_ingress_service, default_istio_namespace, yes};
use super::{Checks, KeyOrigin, KubernetesConfig};

/// The WorkloadGroup and its mesh, from a GKE cluster that is known by its name.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct GkeConfig {
    /// Project of the cluster: its id, or its number.
    pub project: String,
    /// Region or zone of the cluster.
    pub location: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Namespace of the WorkloadGroup.
    pub namespace: String,
    /// Name of the WorkloadGroup.
    pub workload_group: String,
    /// The one of the control plane's endpoints that is used.
    #[serde(default)]
    pub endpoint: GkeEndpoint,
    /// URL of the Kubernetes Engine API.
    #[serde(default = "default_api")]
    pub api: String,
    // From here on the keys of `KubernetesConfig`, written out once more: serde's `flatten` would let unknown keys
    // pass, and tell neither the line nor the key of a wrong value.
    /// Istio's name of the cluster.
    #[serde(default = "default_cluster_id")]
    pub cluster_id: String,
    /// Revision of the control plane; empty: the one without a name.
    #[serde(default)]
    pub revision: String,
    /// Namespace of the control plane.
    #[serde(default = "default_istio_namespace")]
    pub istio_namespace: String,
    /// Address or host name at which istiod is reached; absent: that of `ingress_service`.
    pub ingress: Option<String>,
    /// Service that leads to istiod from outside the cluster, `name` or `name.namespace`.
    #[serde(default = "default_ingress_service")]
    pub ingress_service: String,
    /// True when istiod makes the WorkloadEntry.
    #[serde(default = "yes")]
    pub auto_register: bool,
    /// True when the agent answers the VM's DNS questions.
    #[serde(default = "yes")]
    pub dns_capture: bool,
    /// Where all this was written.
    #[serde(skip)]
    pub keys: KeyOrigin,
}

/// An endpoint of a cluster's control plane.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GkeEndpoint {
    /// The first that can be reached: private, public, DNS-based.
    #[default]
    Auto,
    /// The public address.
    Public,
    /// The address in the VPC.
    Private,
    /// The name below gke.goog, with a certificate that every system trusts.
    Dns,
}

fn default_api() -> String {
    "https://container.googleapis.com".to_owned()
}

impl GkeConfig {
    pub(super) fn checks(&self) -> Checks {
        let names = [
            ("project", &self.project),
            ("location", &self.location),
            ("cluster", &self.cluster),
        ];
        let names = names.map(|(key, value)| resource_name(&format!("join.gke.{key}"), value));
        let mut checks = self.group().check_group("join.gke");
        checks.extend(names);
        checks.push(https_url("join.gke.api", &self.api));
        checks
    }

    /// Source of the WorkloadGroup: the cluster's API server, however that is reached.
    pub fn group(&self) -> KubernetesConfig {
        KubernetesConfig {
            namespace: self.namespace.clone(),
            workload_group: self.workload_group.clone(),
            server: None,
            ca_file: None,
            token_file: None,
            google: true,
            kubeconfig: None,
            context: None,
            cluster_id: self.cluster_id.clone(),
            revision: self.revision.clone(),
            istio_namespace: self.istio_namespace.clone(),
            ingress: self.ingress.clone(),
            ingress_service: self.ingress_service.clone(),
            auto_register: self.auto_register,
            dns_capture: self.dns_capture,
        }
    }

    /// The cluster's full name in Google's APIs.
    pub fn cluster_name(&self) -> String {
        let Self {
            project,
            location,
            cluster,
            ..
        } = self;
        format!("projects/{project}/locations/{location}/clusters/{cluster}")
    }
}

impl fmt::Display for GkeEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::Public => "public",
            Self::Private => "private",
            Self::Dns => "DNS-based",
        })
    }
}

/// A part of a name in Google's APIs, which needs no escaping in a URL; old projects are `domain.com:name`.
pub(super) fn resource_name(key: &str, value: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-.:".contains(&byte);
    let begins = value.starts_with(|c: char| c.is_ascii_alphanumeric());
    if begins && value.len() <= 100 && value.bytes().all(allowed) {
        return Ok(());
    }
    Err(format!(
        "{key} = {value:?}: is no name in Google Cloud: lower-case letters, digits and '-'"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<GkeConfig, String> {
        let minimal = "project = \"shop\"\nlocation = \"europe-west1\"\ncluster = \"boutique\"\n\
                       namespace = \"onlineboutique\"\nworkload_group = \"productcatalog\"\n";
        let config: GkeConfig = toml::from_str(&format!("{minimal}{text}")).map_err(|error| error.to_string())?;
        match config.checks().into_iter().find_map(Result::err) {
            Some(problem) => Err(problem),
            None => Ok(config),
        }
    }

    #[test]
    fn gke_table_needs_five_names() {
        let config = parse("").unwrap();
        assert_eq!(
            config.cluster_name(),
            "projects/shop/locations/europe-west1/clusters/boutique"
        );
        assert_eq!(
            (config.endpoint, config.api.as_str()),
            (GkeEndpoint::Auto, "https://container.googleapis.com")
        );
        assert_eq!(parse("endpoint = \"dns\"").unwrap().endpoint, GkeEndpoint::Dns);
    }

    #[test]
    fn gke_defaults_are_those_of_join_kubernetes() {
        let kubernetes = "kubeconfig = \"/k\"\nnamespace = \"onlineboutique\"\nworkload_group = \"productcatalog\"";
        let kubernetes: KubernetesConfig = toml::from_str(kubernetes).unwrap();
        let gke = parse("").unwrap().group();
        let alike = KubernetesConfig {
            google: gke.google,
            kubeconfig: gke.kubeconfig.clone(),
            ..kubernetes
        };
        assert_eq!(gke, alike);
    }

    #[test]
    fn gke_table_that_makes_no_sense_is_named() {
        for (text, expected) in [
            ("endpoint = \"vpn\"", "unknown variant `vpn`"),
            (
                "api = \"http://localhost\"",
                "join.gke.api = \"http://localhost\": must be https://",
            ),
            ("revision = \"A/b\"", "join.gke.revision = \"A/b\""),
            ("server = \"https://a\"", "unknown field `server`"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for name in ["", "a/b", "A", "a?b", "-a", "../x", &"a".repeat(101)] {
            let error = resource_name("join.gke.cluster", name).unwrap_err();
            assert!(error.starts_with("join.gke.cluster = "), "{error}");
        }
        resource_name("join.gke.project", "example.com:shop").unwrap();
    }
}
