//! `join.gke`: the API server of a GKE cluster, found by the cluster's name with the instance's Google identity. From
//! there on it is `join.kubernetes`. Where it is and who vouches for it are asked for again at each refresh, so that
//! a rotation of the cluster's credentials is followed.

mod endpoint;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod refusal;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use reqwest::Url;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::Answered;
use super::bundle::Bundle;
use super::kubernetes::{GroupRef, Kubernetes};
use crate::config::{Config, ConfigError, GkeConfig};
use crate::control_plane::token::{Token, TokenSource};
use crate::google::Metadata;
use crate::google::cluster::{ApiEndpoint, Cluster};
use crate::google::container::{self, Failure};
use crate::host::Host;
use crate::kube::{Access, Credential};
use crate::supervise::sleep_jittered;
use crate::web::Trust;

/// Longest wait for a connection to an endpoint that may not be open to this VM.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// While no API server has been found.
const POLL: Duration = Duration::from_secs(60);

/// A workload group in a GKE cluster. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Gke(Arc<ClusterLookup>);

#[derive(Debug)]
struct ClusterLookup {
    config: GkeConfig,
    group_ref: GroupRef,
    metadata: Metadata,
    /// Roots that the Kubernetes Engine API is known by.
    trust: Trust,
    found: Mutex<Option<FoundCluster>>,
}

#[derive(Clone, Debug)]
struct FoundCluster {
    endpoint: ApiEndpoint,
    kubernetes: Arc<Kubernetes>,
}

impl Gke {
    /// Asks nothing yet.
    pub(super) fn open(config: &GkeConfig, whole: &Config, host: &Host) -> Result<Self, ConfigError> {
        let group_ref = GroupRef::of(&config.group(), config.keys, whole);
        let wrong = |error: anyhow::Error| ConfigError::key("join.gke", format!("{error:#}"));
        let metadata = Metadata::of_this_vm(host).map_err(wrong)?;
        Ok(Self::new(config, group_ref, metadata, Trust::System))
    }

    fn new(config: &GkeConfig, group_ref: GroupRef, metadata: Metadata, trust: Trust) -> Self {
        Self(Arc::new(ClusterLookup {
            config: config.clone(),
            group_ref,
            metadata,
            trust,
            found: Mutex::default(),
        }))
    }

    pub(super) fn name(&self) -> String {
        let config = &self.0.config;
        let (namespace, group) = (&config.namespace, &config.workload_group);
        format!("workloadgroup {namespace}/{group} in {}", config.cluster_name())
    }

    pub(super) async fn bundle(&self) -> Result<Bundle> {
        self.0.kubernetes().await?.bundle().await
    }

    /// Istio's own name of the cluster, where it may be read.
    pub(super) async fn cluster_name(&self) -> Result<Option<String>> {
        self.0.kubernetes().await?.cluster_name().await
    }

    /// Tells how wrong this VM's clock is by the API server's, if it is.
    pub(super) fn clock_problem(&self) -> Option<String> {
        let found = self.0.found.try_lock().ok()?;
        found.as_ref()?.kubernetes.clock_problem()
    }

    pub(super) async fn changed(&self) {
        let found = self.0.found.lock().await.clone();
        match found {
            // It wants to be asked again after some time in any case.
            Some(found) => found.kubernetes.changed().await,
            None => sleep_jittered(POLL).await,
        }
    }
}

impl TokenSource for Gke {
    fn place(&self) -> String {
        self.name()
    }

    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token>> + Send + '_>> {
        Box::pin(async { self.0.kubernetes().await?.tokens().token().await })
    }
}

impl ClusterLookup {
    /// The API server as it is reached now. What was found last stays in use while Google's API doesn't answer.
    async fn kubernetes(&self) -> Result<Arc<Kubernetes>> {
        let mut found = self.found.lock().await;
        let endpoints = match (self.ask().await, found.as_ref()) {
            (Ok(cluster), _) => endpoint::wanted(&cluster, self.config.endpoint, self.config.keys)?,
            (Err(error), Some(found)) => {
                tracing::warn!("the API server that was found last stays in use: {error:#}");
                return Ok(found.kubernetes.clone());
            }
            (Err(error), None) => return Err(error),
        };
        let endpoint = self.open_one(endpoints).await?;
        if let Some(found) = found.as_ref()
            && found.endpoint == endpoint
        {
            return Ok(found.kubernetes.clone());
        }
        tracing::info!(
            cluster = self.config.cluster_name(),
            server = endpoint.server,
            endpoint = %endpoint.kind,
            "{}",
            news(found.as_ref().map(|found| &found.endpoint), &endpoint),
        );
        let access = Access {
            server: endpoint.server.clone(),
            trust: endpoint.trust(&self.config.cluster_name()),
            credential: Credential::Google(self.metadata.clone()),
        };
        let kubernetes = Arc::new(Kubernetes::new(access, self.group_ref.clone())?);
        *found = Some(FoundCluster {
            endpoint,
            kubernetes: kubernetes.clone(),
        });
        Ok(kubernetes)
    }

    /// Asks Google for the cluster's description.
    async fn ask(&self) -> Result<Cluster> {
        let name = self.config.cluster_name();
        let described = container::describe(&self.metadata, self.trust.clone(), &self.config.api, &name).await;
        described.map_err(|failure| match failure {
            Failure::Refused { status, text } => {
                let why = format!(
                    "failed to find {name}: {}",
                    refusal::explain(status, &text, &self.config)
                );
                match status.is_server_error() {
                    true => anyhow!(why),
                    false => Answered(why).into(),
                }
            }
            Failure::Unanswered(error) => error,
        })
    }

    /// The only one, or the first that lets this VM in.
    async fn open_one(&self, endpoints: Vec<ApiEndpoint>) -> Result<ApiEndpoint> {
        if let [endpoint] = endpoints.as_slice() {
            return Ok(endpoint.clone());
        }
        let mut closed = Vec::new();
        for endpoint in endpoints {
            match connect(&endpoint.server).await {
                Ok(()) => return Ok(endpoint),
                Err(error) => closed.push(format!("{} {}: {error:#}", endpoint.kind, endpoint.server)),
            }
        }
        bail!(
            "no endpoint of {} lets this VM in ({}): allow its address in the cluster's authorized networks, or \
             `gcloud container clusters update {} --location {} --enable-dns-access`",
            self.config.cluster_name(),
            closed.join("; "),
            self.config.cluster,
            self.config.location,
        )
    }
}

/// Tries to connect; who answers is found out later, by TLS.
async fn connect(server: &str) -> Result<()> {
    let url = Url::parse(server)?;
    let (host, port) = (
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(443),
    );
    let connected = timeout(
        CONNECT_TIMEOUT,
        TcpStream::connect((host.trim_matches(['[', ']']), port)),
    )
    .await;
    connected.map_err(|_| anyhow!("no answer within {CONNECT_TIMEOUT:?}"))??;
    Ok(())
}

fn news(old: Option<&ApiEndpoint>, new: &ApiEndpoint) -> &'static str {
    match old {
        None => "found the API server of the cluster",
        Some(old) if old.server != new.server => "the API server of the cluster is elsewhere now",
        Some(_) => "the API server of the cluster has another CA now",
    }
}
