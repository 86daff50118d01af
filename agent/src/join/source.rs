//! The sources that documents come from, behind one face.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;

use super::assemble::Documents;
use super::directory::Directory;
use super::gke::Gke;
use super::https::Https;
use super::kubernetes::Kubernetes;
use crate::config::{Config, ConfigError, JoinConfig};
use crate::control_plane::token::TokenSource;
use crate::host::Host;

/// How often a source that can't tell of changes is asked, before jitter.
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
                config.public_key.is_some(),
                host,
            ))),
            JoinConfig::Kubernetes(join) => {
                Kubernetes::open(join, config, host).map(|kubernetes| Self::Kubernetes(Box::new(kubernetes)))
            }
            JoinConfig::Gke(join) => Gke::open(join, config, host).map(Self::Gke),
            JoinConfig::Https(config) => Https::open(config, host).map(Self::Https),
        }
    }

    /// For people, and to tell whose documents are kept.
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

    /// Whether it is on this VM, so that what is wrong with it is wrong with the configuration.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// Whether it is on this VM, and others than root write it.
    pub(super) fn is_given(&self) -> bool {
        matches!(self, Self::Directory(directory) if directory.is_given())
    }

    /// A local source's documents.
    pub(super) fn local(&self) -> Result<Option<Documents>, ConfigError> {
        match self {
            Self::Directory(directory) => directory.read().map(Some),
            Self::Kubernetes(_) | Self::Gke(_) | Self::Https(_) => Ok(None),
            #[cfg(test)]
            Self::Scripted(_) => Ok(None),
        }
    }

    /// All documents as they are now; bounded in time and size.
    pub(super) async fn documents(&self) -> Result<Documents> {
        match self {
            Self::Directory(directory) => Ok(directory.read()?),
            Self::Kubernetes(kubernetes) => Box::pin(kubernetes.documents()).await,
            Self::Gke(gke) => Box::pin(gke.documents()).await,
            Self::Https(https) => Box::pin(https.documents()).await,
            #[cfg(test)]
            Self::Scripted(script) => script.documents().await,
        }
    }

    /// Completes when the documents may have changed.
    pub(super) async fn changed(&self) {
        match self {
            Self::Directory(directory) => tokio::select! {
                () = directory.changed() => {}
                () = poll(POLL) => {}
            },
            Self::Kubernetes(kubernetes) => kubernetes.changed().await,
            Self::Gke(gke) => gke.changed().await,
            Self::Https(https) => https.changed().await,
            #[cfg(test)]
            Self::Scripted(_) => poll(POLL).await,
        }
    }

    /// How wrong this VM's clock is by the source's last answer, where that tells the time.
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

    /// Good documents of it are in use: those before which changes have to rest.
    pub(super) fn accepted(&self, documents: &Documents) {
        match self {
            Self::Https(https) => https.accepted(documents),
            Self::Directory(_) | Self::Kubernetes(_) | Self::Gke(_) => {}
            #[cfg(test)]
            Self::Scripted(scripted) => scripted.accepted(documents),
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

/// Waits for the next look, spread over a fleet.
pub(super) async fn poll(every: Duration) {
    tokio::time::sleep(every.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
}
