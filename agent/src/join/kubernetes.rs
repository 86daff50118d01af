//! `join.kubernetes`: the bundle made of the objects in the cluster, straight from its API server, and istiod's tokens
//! from there too, where `istioctl x workload entry configure` had to be run.
//!
//! Asks for each object by its name only, so that a Role of five rules is enough.

mod access;
pub(super) mod compose;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod group_ref;
mod ingress;
mod injector;
mod refusal;
mod tokens;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use futures_util::stream::FuturesUnordered;
use http::StatusCode;
use serde::de::DeserializeOwned;
use tokio_stream::StreamExt;

use super::bundle::Bundle;
use crate::config::{Config, ConfigError, KeyOrigin, KubernetesConfig};
use crate::control_plane::token::TokenSource;
use crate::host::Host;
use crate::kube::{Access, Api, ConfigMap, Failure, Kind, Resource, Service, WorkloadGroup};
use crate::supervise::{jittered, sleep_jittered};
use compose::Objects;
use group_ref::Ingress;
use tokens::Tokens;

pub(super) use group_ref::GroupRef;

/// The ConfigMap that istiod puts into each namespace (istio/pkg/config/constants).
const ROOTS: &str = "istio-ca-root-cert";

/// Times between questions; all before jitter.
#[derive(Clone, Copy, Debug)]
struct WatchIntervals {
    /// The longest life of a watch: then all is asked for again, addresses of host names included.
    watch: Duration,
    /// The time between looks where a watch is not permitted.
    poll: Duration,
    /// A fleet that waits for the same change spreads its next look over this time.
    spread: Duration,
}

const INTERVALS: WatchIntervals = WatchIntervals {
    watch: Duration::from_secs(600),
    poll: Duration::from_secs(60),
    spread: Duration::from_secs(2),
};

/// A workload group in a cluster.
#[derive(Debug)]
pub(super) struct Kubernetes {
    group_ref: GroupRef,
    api: Arc<Api>,
    tokens: Arc<Tokens>,
    /// The objects that the last bundle was made of, with the version of each.
    seen: Mutex<Vec<(Resource, String)>>,
    intervals: WatchIntervals,
}

impl Kubernetes {
    /// The configured group and server; touches files only.
    pub(super) fn open(config: &KubernetesConfig, whole: &Config, host: &Host) -> Result<Self, ConfigError> {
        let access = access::open(config, whole, host)?;
        let wrong = |error: anyhow::Error| ConfigError::key("join.kubernetes", format!("{error:#}"));
        Self::new(access, GroupRef::of(config, KeyOrigin::Kubernetes, whole)).map_err(wrong)
    }

    /// A workload group, however its API server is reached.
    pub(super) fn new(access: Access, group_ref: GroupRef) -> Result<Self> {
        let api = Arc::new(Api::new(access)?);
        Ok(Self {
            tokens: Arc::new(Tokens::new(api.clone(), group_ref.clone())),
            group_ref,
            api,
            seen: Mutex::default(),
            intervals: INTERVALS,
        })
    }

    /// The source for people, and to tell whose bundle is in the cache.
    pub(super) fn name(&self) -> String {
        format!("{} at {}", self.group(), self.api.server())
    }

    /// The bundle that the objects make as they are now.
    pub(super) async fn bundle(&self) -> Result<Bundle> {
        let (group, mesh, roots) = (self.group(), self.mesh(), self.roots());
        // First, because it is what the operator named; its connection serves the others.
        let workload_group: WorkloadGroup = self.get(&group).await?;
        let (mesh_map, roots_map, service) = tokio::try_join!(
            self.get::<ConfigMap>(&mesh),
            self.get::<ConfigMap>(&roots),
            self.ingress_service(),
        )?;
        self.tokens.learn(&workload_group);
        let mut seen = vec![
            (group, workload_group.metadata.resource_version.clone()),
            (mesh, mesh_map.metadata.resource_version.clone()),
            (roots, roots_map.metadata.resource_version.clone()),
        ];
        seen.extend(
            service
                .as_ref()
                .map(|(resource, service)| (resource.clone(), service.metadata.resource_version.clone())),
        );
        let ingress = ingress::addresses(&self.group_ref, service.as_ref().map(|(_, service)| service)).await?;
        let objects = Objects {
            workload_group,
            mesh: mesh_map,
            roots: roots_map,
            ingress,
        };
        let bundle = compose::bundle(&objects, &self.group_ref)?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        Ok(bundle)
    }

    /// Completes when one of the objects has changed, or may have: when they can't be watched, and when the name of
    /// the ingress may have another address.
    pub(super) async fn changed(&self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let intervals = self.intervals;
        let life = jittered(intervals.watch);
        let watches = seen
            .iter()
            .map(|(resource, version)| watch(&self.api, resource, version, life, intervals.poll));
        match watches.collect::<FuturesUnordered<_>>().next().await {
            Some(_) => tokio::time::sleep(intervals.spread.mul_f64(fastrand::f64())).await,
            None => sleep_jittered(intervals.poll).await,
        }
    }

    /// Tells how wrong this VM's clock is by the API server's, if it is.
    pub(super) fn clock_problem(&self) -> Option<String> {
        self.api.clock_problem()
    }

    /// Istio's own name of the cluster; `None` where the injector says none, or may not be read: the Role that
    /// `manifests` prints has no rule for it.
    pub(super) async fn cluster_name(&self) -> Result<Option<String>> {
        let name = self.group_ref.with_revision(injector::NAME);
        let resource = Resource::new(Kind::ConfigMap, &self.group_ref.istio_namespace, &name);
        match self.api.get::<ConfigMap>(&resource).await {
            Ok(injector) => Ok(injector::cluster_name(&injector)),
            Err(Failure::Refused(refusal))
                if [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN].contains(&refusal.status) =>
            {
                Ok(None)
            }
            Err(failure) => Err(refusal::explained(failure, self.group_ref.keys)),
        }
    }

    pub(super) fn tokens(&self) -> Arc<dyn TokenSource> {
        self.tokens.clone()
    }

    async fn get<T: DeserializeOwned>(&self, resource: &Resource) -> Result<T> {
        let object = self.api.get(resource).await;
        object.map_err(|failure| refusal::explained(failure, self.group_ref.keys))
    }

    async fn ingress_service(&self) -> Result<Option<(Resource, Service)>> {
        let (namespace, name, optional) = match &self.group_ref.ingress {
            Ingress::Given(_) => return Ok(None),
            Ingress::Service { namespace, name } => (namespace, name, false),
            Ingress::Optional { namespace, name } => (namespace, name, true),
        };
        let resource = Resource::new(Kind::Service, namespace, name);
        match self.api.get(&resource).await {
            Ok(service) => Ok(Some((resource, service))),
            Err(Failure::Refused(refusal))
                if optional && [StatusCode::NOT_FOUND, StatusCode::FORBIDDEN].contains(&refusal.status) =>
            {
                Ok(None)
            }
            Err(failure) => Err(refusal::explained(failure, self.group_ref.keys)),
        }
    }

    fn group(&self) -> Resource {
        Resource::new(
            Kind::WorkloadGroup,
            &self.group_ref.namespace,
            &self.group_ref.workload_group,
        )
    }

    fn mesh(&self) -> Resource {
        Resource::new(
            Kind::ConfigMap,
            &self.group_ref.istio_namespace,
            &self.group_ref.mesh_config_map(),
        )
    }

    fn roots(&self) -> Resource {
        Resource::new(Kind::ConfigMap, &self.group_ref.namespace, ROOTS)
    }
}

/// Completes when `resource` is to be asked for again.
async fn watch(api: &Api, resource: &Resource, version: &str, life: Duration, every: Duration) {
    if let Err(failure) = api.wait_for_change(resource, version, life).await {
        tracing::debug!("asking again from time to time: {failure}");
        sleep_jittered(every).await;
    }
}

#[cfg(test)]
mod tests;
