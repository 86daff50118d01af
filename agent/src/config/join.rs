//! `[join]`: where cluster.env, mesh.yaml, roots, hosts and the token come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Checks, GkeConfig, HttpsConfig, KubernetesConfig, public_key};

/// `[join]`: exactly one source.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JoinConfig {
    /// The folder that `istioctl x workload entry configure` wrote.
    Directory(DirectoryConfig),
    /// The cluster's API server. Boxed: it has many keys.
    Kubernetes(Box<KubernetesConfig>),
    /// The API server of a GKE cluster. Boxed too.
    Gke(Box<GkeConfig>),
    /// The bundle's files below a URL.
    Https(HttpsConfig),
}

/// `join.directory`.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The folder with cluster.env, mesh.yaml, root-cert.pem, hosts and istio-token.
    pub path: PathBuf,
    /// The public key of whoever signs the files; absent: they need no signature.
    pub public_key: Option<String>,
}

impl Default for JoinConfig {
    fn default() -> Self {
        Self::Directory(DirectoryConfig {
            path: "/etc/istio-vm-agent/bundle".into(),
            public_key: None,
        })
    }
}

impl JoinConfig {
    /// Checks that serde can't make.
    pub(super) fn checks(&self) -> Checks {
        match self {
            Self::Directory(directory) => vec![
                super::absolute("join.directory.path", &directory.path),
                public_key::check("join.directory.public_key", directory.public_key.as_deref()),
            ],
            Self::Kubernetes(kubernetes) => kubernetes.checks(),
            Self::Gke(gke) => gke.checks(),
            Self::Https(https) => https.checks(),
        }
    }

    /// minisign's public key, where the files must be signed.
    pub fn public_key(&self) -> Option<&str> {
        match self {
            Self::Directory(directory) => directory.public_key.as_deref(),
            Self::Https(https) => https.public_key.as_deref(),
            Self::Kubernetes(_) | Self::Gke(_) => None,
        }
    }
}
