//! Google Cloud as the VM sees it: the metadata server's attributes and access tokens, and the description of a GKE
//! cluster.
//!
//! Used by `cli` (a configuration that comes with the instance) and by `join` (Google's APIs, and GKE's API server).
//! Nothing here waits long: a VM that is elsewhere must notice nothing of it. The rules let these calls pass.

mod access_token;
pub(crate) mod cluster;
pub(crate) mod container;
#[cfg(test)]
pub(crate) mod fixtures;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::StatusCode;
use tokio::time::Instant;

use crate::config::env;
use crate::host::{Host, Read};
use crate::web::{Client, Patience, Trust};

pub(crate) use access_token::AccessToken;

/// The metadata server's own address, so that no resolver is needed to find it.
const ADDRESS: &str = "169.254.169.254";
/// Header that is required of both sides: it keeps a request that something else was tricked into from being answered.
const FLAVOR_HEADER: &str = "metadata-flavor";
const FLAVOR: &str = "Google";
/// All attributes of an instance or a project are at most 512 KB together.
const MAX_ATTRIBUTES: usize = 1 << 20;
/// Longest answer to any other question, in bytes.
const MAX_ANSWER: usize = 64 << 10;
/// Time for a question: the server is on the same machine.
const TIMEOUTS: Patience = Patience {
    connect: Duration::from_millis(500),
    exchange: Duration::from_secs(1),
};
/// Time for a token, which the server may have to fetch first.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(10);
/// The name that the firmware of a Compute Engine instance has, for Google's own libraries too. It is the hypervisor's:
/// nobody on the VM or its network can change it.
const PRODUCT_NAME: &str = "/sys/class/dmi/id/product_name";
const PRODUCTS: [&str; 2] = ["Google", "Google Compute Engine"];

/// True when the firmware says that this VM is on Compute Engine.
pub(crate) fn is_google(host: &Host) -> bool {
    let name = host.read(Path::new(PRODUCT_NAME), Read::max(MAX_ANSWER)).ok().flatten();
    name.is_some_and(|name| PRODUCTS.contains(&name.trim()))
}

/// The metadata server's `host[:port]`, where there is one to be asked: on Compute Engine, and where the operator has
/// set GCE_METADATA_HOST, as for Google's own libraries. Anywhere else its address is any neighbour's to take, and it
/// speaks plain HTTP.
pub(crate) fn metadata_host(host: &Host) -> Option<String> {
    env::gce_metadata_host().or_else(|| is_google(host).then(|| ADDRESS.to_owned()))
}

/// The metadata server. Cheap to clone; tokens are shared.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// `http://host[:port]`
    base: String,
    quick: Client,
    patient: Client,
    token: Arc<Mutex<Option<(AccessToken, Instant)>>>,
}

impl Metadata {
    /// This VM's.
    ///
    /// # Errors
    /// There is none; the message says what to do.
    pub(crate) fn of_this_vm(host: &Host) -> Result<Self> {
        let Some(host) = metadata_host(host) else {
            bail!(
                "this VM is not on Google Compute Engine ({PRODUCT_NAME}), so nobody vouches for what answers as the \
                 metadata server: set GCE_METADATA_HOST=host[:port] in the agent's environment if there is one"
            );
        };
        Self::at(&format!("http://{host}"))
    }

    /// The one at `base`, a URL without a path.
    pub(crate) fn at(base: &str) -> Result<Self> {
        let patient = Patience {
            exchange: TOKEN_TIMEOUT,
            ..TIMEOUTS
        };
        Ok(Self {
            base: base.to_owned(),
            quick: Client::new(Trust::Plain, TIMEOUTS)?,
            patient: Client::new(Trust::Plain, patient)?,
            token: Arc::default(),
        })
    }

    /// The custom attributes of the instance (`gcloud compute instances add-metadata`).
    pub(crate) async fn instance_attributes(&self) -> Result<BTreeMap<String, String>> {
        self.attributes("instance").await
    }

    /// The custom attributes of the instance's project, which all its instances have.
    pub(crate) async fn project_attributes(&self) -> Result<BTreeMap<String, String>> {
        self.attributes("project").await
    }

    /// The project's id.
    pub(crate) async fn project(&self) -> Result<String> {
        self.required("project/project-id").await
    }

    /// The zone that the instance is in, such as `europe-west1-b`.
    pub(crate) async fn zone(&self) -> Result<String> {
        // projects/123456789/zones/europe-west1-b
        let zone = self.required("instance/zone").await?;
        let name = zone.rsplit('/').next().unwrap_or_default();
        Ok(name.to_owned())
    }

    /// An access token of the instance's service account, good for some minutes at least.
    pub(crate) async fn access_token(&self) -> Result<AccessToken> {
        if let Some((token, until)) = self.cached().as_ref()
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        let Some(text) = self
            .get(&self.patient, "instance/service-accounts/default/token", MAX_ANSWER)
            .await?
        else {
            bail!(
                "this VM has no service account: attach one, with the VM stopped, by `gcloud compute instances \
                 set-service-account VM --service-account EMAIL --scopes cloud-platform,userinfo-email`"
            );
        };
        let (token, life) = access_token::parse(&text).with_context(|| format!("{} gave no token", self.base))?;
        *self.cached() = Some((token.clone(), Instant::now() + life));
        Ok(token)
    }

    /// Forgets the token, after a server has refused it.
    pub(crate) fn forget_token(&self) {
        *self.cached() = None;
    }

    async fn attributes(&self, of: &str) -> Result<BTreeMap<String, String>> {
        let path = format!("{of}/attributes/?recursive=true&alt=json");
        let Some(text) = self.get(&self.quick, &path, MAX_ATTRIBUTES).await? else {
            return Ok(BTreeMap::new());
        };
        let place = || format!("{} gave {of} attributes that can't be read", self.base);
        strings(&text).with_context(place)
    }

    async fn required(&self, path: &str) -> Result<String> {
        let text = self.get(&self.quick, path, MAX_ANSWER).await?;
        let text = text.with_context(|| format!("{} has no {path}", self.base))?;
        Ok(text.trim().to_owned())
    }

    /// `None`: it has no such thing.
    async fn get(&self, client: &Client, path: &str, max: usize) -> Result<Option<String>> {
        let request = client.get(&format!("{}/computeMetadata/v1/{path}", self.base));
        let answer = client.exchange(request.header(FLAVOR_HEADER, FLAVOR), max).await;
        let answer = answer.context("failed to ask the metadata server: is this VM on Google Compute Engine?")?;
        let (status, flavor) = (answer.status, answer.headers.get(FLAVOR_HEADER));
        ensure!(
            flavor.is_some_and(|value| value == FLAVOR),
            "{} is not Google's metadata server: it answers {status} without `Metadata-Flavor: Google`",
            self.base
        );
        match status {
            StatusCode::OK => Ok(Some(answer.text)),
            StatusCode::NOT_FOUND => Ok(None),
            _ => bail!("the metadata server answers {status} to {path}"),
        }
    }

    fn cached(&self) -> std::sync::MutexGuard<'_, Option<(AccessToken, Instant)>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The attributes whose values are text.
fn strings(text: &str) -> serde_json::Result<BTreeMap<String, String>> {
    let values: BTreeMap<String, serde_json::Value> = serde_json::from_str(text)?;
    let strings = values.into_iter().filter_map(|(key, value)| match value {
        serde_json::Value::String(value) => Some((key, value)),
        _ => None,
    });
    Ok(strings.collect())
}
