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
use crate::web::{Answer, Client, Patience, Trust};

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
/// Time for which the server may keep a question until the answer is another one, in seconds.
const LONG_POLL: u64 = 60;
/// Header that tells one answer from the next.
const ETAG: &str = "etag";
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

/// A value that may change, as it was last.
#[derive(Clone, Debug)]
pub(crate) struct Value {
    pub(crate) text: String,
    /// Tells it from the next one.
    etag: String,
}

/// The metadata server. Cheap to clone; tokens are shared.
#[derive(Clone, Debug)]
pub(crate) struct Metadata {
    /// `http://host[:port]`
    base: String,
    quick: Client,
    patient: Client,
    /// For questions that the server keeps.
    lasting: Client,
    token: Arc<Mutex<Option<(AccessToken, Instant)>>>,
}

impl Metadata {
    /// The metadata server of this VM.
    ///
    /// # Errors
    /// When there is none; the message says what to do.
    pub(crate) fn of_this_vm(host: &Host) -> Result<Self> {
        Self::if_there(host).unwrap_or_else(|| {
            bail!(
                "this VM is not on Google Compute Engine ({PRODUCT_NAME}), so nobody vouches for what answers as the \
                 metadata server: set GCE_METADATA_HOST=host[:port] in the agent's environment if there is one"
            )
        })
    }

    /// The metadata server of this VM, where there is one.
    pub(crate) fn if_there(host: &Host) -> Option<Result<Self>> {
        metadata_host(host).map(|host| Self::at(&format!("http://{host}")))
    }

    /// The one at `base`, a URL without a path.
    pub(crate) fn at(base: &str) -> Result<Self> {
        let patient = Patience {
            exchange: TOKEN_TIMEOUT,
            ..TIMEOUTS
        };
        let lasting = Patience {
            exchange: Duration::from_secs(LONG_POLL) + TOKEN_TIMEOUT,
            ..TIMEOUTS
        };
        Ok(Self {
            base: base.to_owned(),
            quick: Client::new(Trust::Plain, TIMEOUTS)?,
            patient: Client::new(Trust::Plain, patient)?,
            lasting: Client::new(Trust::Plain, lasting)?,
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

    /// The value at `path` once it is another one than `last`, or after a minute.
    ///
    /// # Errors
    /// When there is none, or the server doesn't answer.
    pub(crate) async fn next(&self, path: &str, last: Option<&Value>) -> Result<Value> {
        let query = match last {
            Some(Value { etag, .. }) => format!("?wait_for_change=true&timeout_sec={LONG_POLL}&last_etag={etag}"),
            None => String::new(),
        };
        let answer = self.ask(&self.lasting, &format!("{path}{query}"), MAX_ANSWER).await?;
        let answer = answer.with_context(|| format!("{} has no {path}", self.base))?;
        let etag = answer.headers.get(ETAG).and_then(|etag| etag.to_str().ok());
        // It goes into the next question.
        let etag = etag.filter(|etag| etag.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        Ok(Value {
            etag: etag.unwrap_or_default().to_owned(),
            text: answer.text.trim().to_owned(),
        })
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
        let answer = self.ask(client, path, max).await?;
        Ok(answer.map(|answer| answer.text))
    }

    /// `None`: it has no such thing.
    async fn ask(&self, client: &Client, path: &str, max: usize) -> Result<Option<Answer>> {
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
            StatusCode::OK => Ok(Some(answer)),
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
