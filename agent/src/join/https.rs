//! The bundle behind HTTPS: five files below a URL. Only what has changed is sent again; the token is asked for at
//! every need and never kept.

pub(super) mod header;
mod quiescence;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use http::header::{CACHE_CONTROL, ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use tokio::time::{Instant, sleep};

use super::bundle::Bundle;
use super::files::{File, Files, SignatureFiles};
use super::signed;
use crate::config::{ConfigError, HttpsConfig};
use crate::control_plane::token::{Token, TokenSource};
use crate::host::{Host, Read};
use crate::supervise::sleep_jittered;
use crate::web::{Answer, Client, ClockCheck, Patience, Trust};
use quiescence::Quiescence;

/// istioctl's files are a few kilobytes each.
const MAX_BYTES: usize = 1 << 20;
/// A CA's certificates; a bundle of all public ones is a fifth of it.
const MAX_ROOTS: usize = 1 << 20;
/// A longer tag is not sent back.
const MAX_TAG: usize = 1 << 10;
/// istioctl leaves it empty when it finds no ingress.
const MAY_BE_EMPTY: &str = "hosts";
const TOKEN: &str = "istio-token";
/// The first files that are taken must have been the same for so long: a start waits for it.
const FIRST_REST: Duration = Duration::from_secs(1);
/// Looks of a start before files that change all the time are called a failure.
const LOOKS: usize = 4;

/// A folder of a web server. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Https(Arc<Folder>);

#[derive(Debug)]
struct Folder {
    config: HttpsConfig,
    host: Host,
    /// The roots that the client was made with, and the client.
    client: Mutex<Option<(Option<String>, Client)>>,
    /// The last text of each file that had a tag.
    known: Mutex<BTreeMap<&'static str, CachedText>>,
    /// The bundle in use.
    accepted: Mutex<Option<Bundle>>,
    /// The files that are there.
    quiescence: Mutex<Quiescence<Files>>,
    first_rest: Duration,
    clock: ClockCheck,
}

#[derive(Debug)]
struct CachedText {
    tag: HeaderValue,
    text: String,
}

fn missing(path: &Path) -> String {
    format!("{} is missing: put it there, or correct the path", path.display())
}

impl Https {
    /// Asks nothing yet. An error is about a file of the configuration's.
    pub(super) fn open(config: &HttpsConfig, host: &Host) -> Result<Self, ConfigError> {
        Self::quiescence(config, host, FIRST_REST)
    }

    fn quiescence(config: &HttpsConfig, host: &Host, first_rest: Duration) -> Result<Self, ConfigError> {
        let folder = Folder {
            config: config.clone(),
            host: host.clone(),
            client: Mutex::default(),
            known: Mutex::default(),
            accepted: Mutex::default(),
            quiescence: Mutex::default(),
            first_rest,
            clock: ClockCheck::default(),
        };
        let wrong = |key: &str, error: anyhow::Error| ConfigError::key(key, format!("{error:#}"));
        if config.ca_file.is_some() {
            folder.client().map_err(|error| wrong("join.https.ca_file", error))?;
        }
        folder
            .headers()
            .map_err(|error| wrong("join.https.header_file", error))?;
        Ok(Self(Arc::new(folder)))
    }

    pub(super) fn name(&self) -> String {
        self.0.config.url.clone()
    }

    /// All files but the token, of which only a request for a certificate has need. A publisher may write file by file:
    /// a change is taken once two looks, half a poll or more apart, have found the same, and what is in use is given
    /// until then. With nothing in use a second must do.
    pub(super) async fn bundle(&self) -> Result<Bundle> {
        let folder = &self.0;
        for _ in 0..LOOKS {
            let (now, rest) = folder.found().await?;
            let accepted = folder.accepted().clone();
            let wanted = match accepted {
                Some(_) => folder.config.poll / 2,
                None => folder.first_rest,
            };
            let public_key = folder.config.public_key.as_deref();
            if rest.is_some_and(|rest| rest >= wanted) {
                return Ok(Bundle::parse(&now, public_key)?);
            }
            if let Some(accepted) = accepted {
                if Bundle::parse(&now, public_key).ok().as_ref() != Some(&accepted) {
                    tracing::info!("the files below {} have changed: taken once they rest", self.name());
                }
                return Ok(accepted);
            }
            sleep(wanted).await;
        }
        bail!(
            "the files below {} change all the time: publish them together",
            self.name()
        )
    }

    /// Takes note that `bundle` is good, and in use.
    pub(super) fn accepted(&self, bundle: &Bundle) {
        *self.0.accepted() = Some(bundle.clone());
    }

    /// Tells how wrong this VM's clock is by the server's, if it is.
    pub(super) fn clock_problem(&self) -> Option<String> {
        self.0.clock.problem()
    }

    pub(super) async fn changed(&self) {
        sleep_jittered(self.0.config.poll).await;
    }
}

impl TokenSource for Https {
    fn place(&self) -> String {
        self.0.url(TOKEN)
    }

    fn token(&self) -> Pin<Box<dyn Future<Output = Result<Token>> + Send + '_>> {
        Box::pin(self.0.token())
    }
}

impl Folder {
    fn url(&self, file: &str) -> String {
        format!("{}/{file}", self.config.url.trim_end_matches('/'))
    }

    async fn look(&self) -> Result<Files> {
        let (cluster_env, mesh_yaml, root_cert, hosts, signature) = tokio::try_join!(
            self.file("cluster.env"),
            self.file("mesh.yaml"),
            self.file("root-cert.pem"),
            self.file(MAY_BE_EMPTY),
            self.signature(),
        )?;
        Ok(Files {
            cluster_env,
            mesh_yaml,
            root_cert,
            hosts,
            signature,
        })
    }

    async fn signature(&self) -> Result<Option<SignatureFiles>> {
        if self.config.public_key.is_none() {
            return Ok(None);
        }
        let (sums, signature) = tokio::try_join!(self.file(signed::SUMS), self.file(signed::SIGNATURE))?;
        Ok(Some(SignatureFiles { sums, signature }))
    }

    async fn file(&self, file: &'static str) -> Result<File> {
        let url = self.url(file);
        let mut headers = self.headers()?;
        if let Some(known) = self.known().get(file) {
            headers.insert(IF_NONE_MATCH, known.tag.clone());
        }
        let answer = self.get(&url, headers).await?;
        let text = match answer.status {
            StatusCode::NOT_MODIFIED => {
                let known = self.known();
                let known = known
                    .get(file)
                    .with_context(|| format!("{url}: answers 304 to a first question"))?;
                known.text.clone()
            }
            _ => self.learn(file, answer).with_context(|| url.clone())?,
        };
        Ok(File::new(url, text))
    }

    /// The text of an answer, remembered by its tag.
    fn learn(&self, file: &'static str, answer: Answer) -> Result<String> {
        self.judge(&answer)?;
        let Answer { headers, text, .. } = answer;
        let blank = |text: &str| text.trim().is_empty();
        let mut known = self.known();
        let had_text = known.get(file).is_some_and(|known| !blank(&known.text));
        ensure!(!blank(&text) || (file == MAY_BE_EMPTY && !had_text), "is empty");
        known.remove(file);
        if let Some(tag) = headers.get(ETAG).filter(|tag| tag.len() <= MAX_TAG) {
            let (tag, text) = (tag.clone(), text.clone());
            known.insert(file, CachedText { tag, text });
        }
        Ok(text)
    }

    async fn token(&self) -> Result<Token> {
        let url = self.url(TOKEN);
        let mut headers = self.headers()?;
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        let answer = self.get(&url, headers).await?;
        self.judge(&answer).with_context(|| url.clone())?;
        Token::new(&url, &answer.text)
    }

    async fn get(&self, url: &str, headers: HeaderMap) -> Result<Answer> {
        let client = self.client()?;
        // Four at once would make a large future.
        let answer = Box::pin(client.exchange(client.get(url).headers(headers), MAX_BYTES)).await?;
        self.clock.compare(&answer.headers);
        Ok(answer)
    }

    /// Refuses any answer but 200, and says what it means.
    fn judge(&self, answer: &Answer) -> Result<()> {
        let header = match &self.config.header_file {
            Some(path) => format!("it doesn't accept the header of {}", path.display()),
            None => "it wants to know who asks: set join.https.header_file".to_owned(),
        };
        match answer.status {
            StatusCode::OK => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                bail!("is not there: join.https.url must hold what `istioctl x workload entry configure` wrote")
            }
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => bail!("answers {status}: {header}"),
            status => bail!("answers {status}"),
        }
    }

    /// The client, made anew when the file with the roots has changed.
    fn client(&self) -> Result<Client> {
        let pem = match &self.config.ca_file {
            Some(path) => {
                let pem = self.host.read(path, Read::max(MAX_ROOTS).following_links())?;
                Some(pem.with_context(|| missing(path))?)
            }
            None => None,
        };
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_with, client)) = client.as_ref()
            && *made_with == pem
        {
            return Ok(client.clone());
        }
        let trust = match (&pem, &self.config.ca_file) {
            (Some(pem), Some(path)) => Trust::Roots {
                pem: pem.clone(),
                place: format!("join.https.ca_file ({})", path.display()),
            },
            _ => Trust::System,
        };
        let new = Client::new(trust, Patience::default())?;
        *client = Some((pem, new.clone()));
        Ok(new)
    }

    /// The headers of a request, read anew for each: whatever renews the file needs to tell nobody.
    fn headers(&self) -> Result<HeaderMap> {
        let mut headers = HeaderMap::new();
        if let Some(path) = &self.config.header_file {
            let text = self
                .host
                .read(path, Read::max(header::MAX_BYTES).following_links().private())?;
            let text = text.with_context(|| missing(path))?;
            let (name, value) = header::parse(&text).with_context(|| path.display().to_string())?;
            headers.insert(name, value);
        }
        Ok(headers)
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<&'static str, CachedText>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accepted(&self) -> MutexGuard<'_, Option<Bundle>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The files that are there, and for how long at least they have been; `None`: they are news.
    async fn found(&self) -> Result<(Files, Option<Duration>)> {
        let began = Instant::now();
        let found = self.look().await?;
        let mut quiescence = self.quiescence.lock().unwrap_or_else(PoisonError::into_inner);
        let rest = quiescence.look(&found, began);
        Ok((found, rest))
    }
}
