//! The [`Membership`] of this VM, made of a bundle of cluster.env, mesh.yaml, roots, hosts and token, and kept true while
//! the agent runs.
//!
//! Publishes `Membership`; caches what a remote source gave last, so that a start waits for no source that has ever
//! answered. Each source is one small module that gives a typed `Bundle`; what that means is the same for all.

mod addresses;
mod assemble;
mod bundle;
mod cache;
mod camel_case;
mod canonical;
mod card;
mod cluster_env;
mod directory;
mod field_error;
mod field_types;
mod files;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gke;
mod hosts_lines;
mod https;
mod known;
mod kubernetes;
mod mesh_yaml;
mod names;
mod origin;
mod part;
mod ports;
mod proxy_config;
mod re2;
mod readiness_probe;
mod refresh;
mod root_certs;
mod settings;
mod signed;
mod source;
mod token;
mod values;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Result, anyhow};
use tokio::sync::watch;

use crate::config::{Config, ConfigError, JoinConfig, Setting};
use crate::control_plane::token::TokenSource;
use crate::facts::Membership;
use crate::host::{Host, blocking};
use crate::supervise::Backoff;
use assemble::assemble;
use bundle::Bundle;
use origin::Origin;
use source::Source;

pub use part::JoinPart;
pub use refresh::run;

/// Shortest wait between the first tries of a source that doesn't answer; each has up to as much again of jitter.
const MIN_BACKOFF: Duration = Duration::from_secs(1);
/// Longest such wait.
const MAX_BACKOFF: Duration = Duration::from_secs(30);

/// A source's answer that this VM can't join by: it says what to mend. One that fails by itself gives none.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Answered(String);

/// The configured source, and what makes a membership of what it gives. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Join {
    source: Arc<Source>,
    config: Arc<Config>,
    host: Host,
    /// The last bundle of a remote source that was taken, whether or not the disk took it too.
    taken: Arc<Mutex<Option<Bundle>>>,
}

impl Join {
    /// Takes the configured source; asks it nothing yet. An error means exit code 78.
    pub fn open(config: &Config, host: &Host) -> Result<Self, ConfigError> {
        Ok(Self {
            source: Arc::new(Source::open(config, host).map_err(|error| config.places.locate(error))?),
            config: Arc::new(config.clone()),
            host: host.clone(),
            taken: Arc::default(),
        })
    }

    /// Finds what is wrong with a local source; blocks. A [`ConfigError`] means exit code 78.
    pub fn check(&self) -> Result<()> {
        self.local().map(drop)
    }

    /// Asks a local source. An error in its files is one in the configuration, unless others than root write them:
    /// they may mend it, and must not be able to end the agent for good.
    fn local(&self) -> Result<Option<Membership>> {
        let bundle = self.source.local();
        let said = bundle.and_then(|bundle| bundle.map(|bundle| self.assemble(&bundle)).transpose());
        said.map_err(|error| match self.source.is_given() {
            true => anyhow!("{error}"),
            false => error.into(),
        })
    }

    /// The source, for people.
    pub fn source(&self) -> String {
        self.source.name()
    }

    /// The maker of tokens, when the source is one.
    pub fn tokens(&self) -> Option<Arc<dyn TokenSource>> {
        self.source.tokens()
    }

    /// Tells how wrong this VM's clock is by the source's last answer, where that has the time; with the remedy.
    pub fn clock_problem(&self) -> Option<String> {
        self.source.clock_problem()
    }

    /// True for a source on this VM.
    pub fn is_local(&self) -> bool {
        self.source.is_local()
    }

    /// The problem of a cluster id that is not Istio's own name of the cluster, as far as the source can tell, and what to do;
    /// bounded in time.
    pub async fn cluster_id_problem(&self, membership: &Membership) -> Result<Option<(String, String)>> {
        let named = self.source.cluster_name().await?;
        let other = named.filter(|named| *named != membership.cluster_id);
        let table = match self.config.join {
            JoinConfig::Gke(_) => "join.gke",
            _ => "join.kubernetes",
        };
        Ok(other.map(|named| {
            let problem = format!(
                "the cluster id is {:?}, and Istio calls the cluster {named:?}: istiod will refuse this VM's token",
                membership.cluster_id
            );
            (problem, format!("write {table}.cluster_id = {named:?}"))
        }))
    }

    /// Every value of the membership, and where it is from: of the bundle at hand, else of what the source gives now.
    pub async fn settings(&self) -> Result<Vec<Setting>> {
        let join = self.clone();
        let bundle = match blocking(move || join.bundle_at_hand()).await? {
            Some(bundle) => bundle,
            None => self.source.bundle().await?,
        };
        let join = self.clone();
        blocking(move || {
            let membership = join.assemble(&bundle)?;
            Ok(settings::of(&bundle, &join.config, &membership))
        })
        .await
    }

    fn last_taken(&self) -> MutexGuard<'_, Option<Bundle>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A local source's bundle, or a remote one's last: of this process, else of the one that it was cached by.
    fn bundle_at_hand(&self) -> Result<Option<Bundle>> {
        let at_hand = self.source.local()?.or_else(|| self.last_taken().clone());
        if at_hand.is_some() {
            return Ok(at_hand);
        }
        let (path, key) = (self.config.paths.membership(), self.config.join.public_key());
        cache::load(&self.host, &path, &self.source.name(), key)
    }

    /// The membership that needs no network: of a local source, or of a remote one's last bundle. Blocks; a name that
    /// only the VM's resolver knows is asked there. A [`ConfigError`] is about a local source and names file, line and
    /// key.
    pub fn at_hand(&self) -> Result<Option<Membership>> {
        if let Some(membership) = self.local()? {
            return Ok(Some(membership));
        }
        let Some(bundle) = self.bundle_at_hand()? else {
            return Ok(None);
        };
        let membership = self.assemble(&bundle)?;
        self.source.accepted(&bundle);
        Ok(Some(membership))
    }

    /// The membership at hand, in use from now on.
    fn taken_up(&self) -> Result<Option<Membership>> {
        let membership = self.at_hand()?;
        if let Some(bundle) = self.source.local()? {
            self.accept(&bundle);
        }
        Ok(membership)
    }

    /// The membership that the source gives now; bounded in time.
    pub async fn fetch(&self) -> Result<Membership> {
        let bundle = self.source.bundle().await?;
        self.take(bundle).await
    }

    /// The membership at hand, else the source's as soon as it answers; `problem` tells why it hasn't.
    pub async fn first(&self, problem: &watch::Sender<Option<String>>) -> Result<Membership> {
        let join = self.clone();
        match blocking(move || join.taken_up()).await {
            Ok(Some(membership)) => return Ok(membership),
            Err(error) if self.source.is_local() => return Err(error),
            Err(error) => tracing::warn!("what {} gave last is of no use: {error:#}", self.source()),
            Ok(None) => {}
        }
        let mut backoff = Backoff::new(MIN_BACKOFF, MAX_BACKOFF);
        loop {
            match self.fetch().await {
                Ok(membership) => {
                    problem.send_replace(None);
                    return Ok(membership);
                }
                Err(error) => {
                    let wait = backoff.next_wait();
                    tracing::warn!(retry_in = ?wait, "failed to join from {}: {error:#}", self.source());
                    problem.send_replace(Some(format!("{error:#}")));
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Caches a bundle that makes a good membership; another one changes nothing.
    async fn take(&self, bundle: Bundle) -> Result<Membership> {
        let join = self.clone();
        blocking(move || {
            let membership = join.assemble(&bundle)?;
            join.source.accepted(&bundle);
            join.accept(&bundle);
            if !join.source.is_local() {
                let path = join.config.paths.membership();
                cache::save(&join.host, &path, &join.source.name(), &bundle)
                    .unwrap_or_else(|error| tracing::error!("a reboot will wait for {}: {error:#}", join.source()));
                *join.last_taken() = Some(bundle);
            }
            Ok(membership)
        })
        .await
    }

    fn assemble(&self, bundle: &Bundle) -> Result<Membership, ConfigError> {
        if let Some(key) = self.config.join.public_key() {
            let store = self.config.paths.newest_signature();
            signed::expect_current(&self.host, &store, key, bundle.signed.as_ref())?;
        }
        assemble(bundle, &self.config, &addresses::Machine::observe()).map_err(|error| self.config.places.locate(error))
    }

    /// Takes note that `bundle` is in use: none that was signed earlier is from now on.
    fn accept(&self, bundle: &Bundle) {
        let Some(signed) = &bundle.signed else { return };
        signed::accept(&self.host, &self.config.paths.newest_signature(), signed)
            .unwrap_or_else(|error| tracing::error!("an older bundle will be taken for as good: {error:#}"));
    }
}

/// Checks a bundle that isn't written yet, as it would be read from `directory`; `files` are names and texts.
///
/// # Errors
/// Names the file, and the key in it, that is wrong or missing.
pub fn check(config: &Config, directory: &Path, files: &[(&str, &str)]) -> Result<Membership, ConfigError> {
    let bundle = directory::unwritten(directory, files)?;
    assemble(&bundle, config, &addresses::Machine::observe())
}

/// The variables of a file of `KEY=value` lines, as a shell that sources it would have them.
///
/// # Errors
/// Names the line that a shell would refuse, or in which it would expand or run something; `path` is for messages.
pub fn variables(path: &Path, text: &str) -> Result<BTreeMap<String, String>, ConfigError> {
    cluster_env::parse(text)
        .map(|env| env.values)
        .map_err(|error| Origin::new(path.display()).error(error))
}

#[cfg(test)]
pub(crate) mod tests;
