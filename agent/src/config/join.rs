//! `[join]`: where cluster.env, mesh.yaml, roots, hosts and the token come from.

use std::path::PathBuf;

use serde::Deserialize;

use super::{GkeConfig, HttpsConfig, KubernetesConfig};

/// `[join]`: exactly one source.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
pub enum JoinConfig {
    /// What `istioctl x workload entry configure` wrote.
    Directory(DirectoryConfig),
    /// The cluster's API server. Boxed: it has many keys.
    Kubernetes(Box<KubernetesConfig>),
    /// The API server of a GKE cluster. Boxed too.
    Gke(Box<GkeConfig>),
    /// The same files below a URL.
    Https(HttpsConfig),
}

/// `join.directory`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The folder with cluster.env, mesh.yaml, root-cert.pem, hosts and istio-token.
    pub path: PathBuf,
}

impl JoinConfig {
    /// What serde can't say.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Directory(directory) => super::absolute("join.directory.path", &directory.path),
            Self::Kubernetes(kubernetes) => kubernetes.check(),
            Self::Gke(gke) => gke.check(),
            Self::Https(https) => https.check(),
        }
    }
}
