//! The sources that a bundle comes from, behind one face.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::bundle::Bundle;
use super::directory::Directory;
use super::gke::Gke;
use super::https::Https;
use super::kubernetes::Kubernetes;
use crate::config::{Config, ConfigError, JoinConfig};
use crate::control_plane::token::TokenSource;
use crate::host::Host;
use crate::supervise::sleep_jittered;

/// Time between two looks at a source that can't tell of changes, before jitter.
const POLL: Duration = Duration::from_secs(60);

/// One of `[join]`'s.
#[derive(Debug)]
pub(super) enum Source {
    Directory(Directory),
    Kubernetes(Box<Kubernetes>),
    Gke(Gke),
    Https(Https),
    #[cfg(test)]
    Scripted(super::tests::remote::Scripted),
}

impl Source {
    pub(super) fn open(config: &Config, host: &Host) -> Result<Self, ConfigError> {
        match &config.join {
            JoinConfig::Directory(config) => Ok(Self::Directory(Directory::new(
                &config.path,
                config.public_key.as_deref(),
                host,
            ))),
            JoinConfig::Kubernetes(join) => {
                Kubernetes::open(join, config, host).map(|kubernetes| Self::Kubernetes(Box::new(kubernetes)))
            }
            JoinConfig::Gke(join) => Gke::open(join, config, host).map(Self::Gke),
            JoinConfig::Https(config) => Https::open(config, host).map(Self::Https),
        }
    }

    /// The source for people, and to tell whose bundle is in the cache.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Directory(directory) => directory.name(),
            Self::Kubernetes(kubernetes) => kubernetes.name(),
            Self::Gke(gke) => gke.name(),
            Self::Https(https) => https.name(),
            #[cfg(test)]
            Self::Scripted(_) => "a scripted source".to_owned(),
        }
    }

    /// True for a source on this VM: what is wrong with it is wrong with the configuration.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// True for a source on this VM that others than root write.
    pub(super) fn is_given(&self) -> bool {
        matches!(self, Self::Directory(directory) if directory.is_given())
    }

    /// A local source's bundle.
    pub(super) fn local(&self) -> Result<Option<Bundle>, ConfigError> {
        match self {
            Self::Directory(directory) => directory.read().map(Some),
            Self::Kubernetes(_) | Self::Gke(_) | Self::Https(_) => Ok(None),
            #[cfg(test)]
            Self::Scripted(_) => Ok(None),
        }
    }

    /// The bundle as it is now; bounded in time and size.
    pub(super) async fn bundle(&self) -> Result<Bundle> {
        match self {
            Self::Directory(directory) => Ok(directory.read()?),
            Self::Kubernetes(kubernetes) => Box::pin(kubernetes.bundle()).await,
            Self::Gke(gke) => Box::pin(gke.bundle()).await,
            Self::Https(https) => Box::pin(https.bundle()).await,
            #[cfg(test)]
            Self::Scripted(script) => script.bundle().await,
        }
    }

    /// Istio's own name of the cluster; `None` where the source can't tell.
    pub(super) async fn cluster_name(&self) -> Result<Option<String>> {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.cluster_name().await,
            Self::Gke(gke) => Box::pin(gke.cluster_name()).await,
            Self::Directory(_) | Self::Https(_) => Ok(None),
            #[cfg(test)]
            Self::Scripted(_) => Ok(None),
        }
    }

    /// Completes when the bundle may have changed.
    pub(super) async fn changed(&self) {
        match self {
            Self::Directory(directory) => tokio::select! {
                () = directory.changed() => {}
                () = sleep_jittered(POLL) => {}
            },
            Self::Kubernetes(kubernetes) => kubernetes.changed().await,
            Self::Gke(gke) => gke.changed().await,
            Self::Https(https) => https.changed().await,
            #[cfg(test)]
            Self::Scripted(_) => sleep_jittered(POLL).await,
        }
    }

    /// Tells how wrong this VM's clock is by the source's last answer, where that has the time.
    pub(super) fn clock_problem(&self) -> Option<String> {
        match self {
            Self::Kubernetes(kubernetes) => kubernetes.clock_problem(),
            Self::Gke(gke) => gke.clock_problem(),
            Self::Https(https) => https.clock_problem(),
            Self::Directory(_) => None,
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }

    /// Takes note that a good bundle of this source is in use: changes of it have to rest.
    pub(super) fn accepted(&self, bundle: &Bundle) {
        match self {
            Self::Https(https) => https.accepted(bundle),
            Self::Directory(_) | Self::Kubernetes(_) | Self::Gke(_) => {}
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.accepted(bundle),
        }
    }

    pub(super) fn tokens(&self) -> Option<Arc<dyn TokenSource>> {
        match self {
            Self::Directory(_) => None,
            Self::Kubernetes(kubernetes) => Some(kubernetes.tokens()),
            Self::Gke(gke) => Some(Arc::new(gke.clone())),
            Self::Https(https) => Some(Arc::new(https.clone())),
            #[cfg(test)]
            Self::Scripted(_) => None,
        }
    }
}
