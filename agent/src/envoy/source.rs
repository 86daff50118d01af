//! The source of Envoy's program: a path of the operator's, or a fetch that is made once and kept.
//!
//! Publishes the program to run. A program that was fetched is found again without a network; while a new one is being
//! fetched, the one before serves. A failed fetch never ends the agent: it is told, and tried again.

mod download;
mod fallback;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod image;
mod program;
mod store;
mod unpack;

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tokio::sync::watch;
use tokio::time::timeout;

use super::options::Options;
use super::process::ledger;
use super::state::EnvoyStatePublisher;
use crate::config::{EnvoyConfig, EnvoySource};
use crate::docker::Progress;
use crate::host::{Host, Staged, blocking};
use crate::oci::{Access, Image};
use crate::supervise::Backoff;
pub use program::{Build, build, version};
use store::Store;

/// The longest time that one try takes.
const FETCH_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// The longest time that a source is asked what it has; the waits for each piece do not bound the whole.
const ASK_TIMEOUT: Duration = Duration::from_secs(30);
/// The first wait between tries.
const MIN_RETRY_WAIT: Duration = Duration::from_secs(1);
/// The longest wait between tries.
const MAX_RETRY_WAIT: Duration = Duration::from_secs(60);

/// The place of the configured program.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Located {
    /// The program is here, and is the one that was pinned.
    Here(PathBuf),
    /// The program has to be fetched, and will be here.
    ToFetch(PathBuf),
}

impl Located {
    /// The path where the program is or will be.
    pub fn path(&self) -> &PathBuf {
        let (Self::Here(path) | Self::ToFetch(path)) = self;
        path
    }
}

/// Looks for the configured program, and takes it for granted that one of the operator's is there. Changes nothing;
/// blocks while the program is read.
pub fn locate(options: &Options) -> Located {
    match pin(&options.config.source()) {
        None => Located::Here(wanted(options)),
        Some(pin) => {
            let store = Store::new(options);
            store
                .find(&pin)
                .map_or_else(|| Located::ToFetch(store.path(&pin)), Located::Here)
        }
    }
}

/// Asks the source whether it has the program, without fetching it: for an image's manifest, or by HEAD.
///
/// # Errors
/// The reason why a fetch would fail, or that there is no answer within 30 s.
pub async fn is_fetchable(options: &Options) -> Result<()> {
    match &options.config.source() {
        EnvoySource::Binary(_) => Ok(()),
        EnvoySource::Image {
            reference,
            registry_config,
            ca_file,
            ..
        } => answered(image::ask(&access(&options.host, registry_config, ca_file), reference)).await,
        EnvoySource::Url { url, ca_file, .. } => answered(download::ask(&options.host, url, ca_file.as_deref())).await,
    }
}

/// The answer of a source, if it is there in time.
async fn answered<T>(answer: impl Future<Output = Result<T>>) -> Result<T> {
    let answer = timeout(ASK_TIMEOUT, answer).await;
    answer.unwrap_or_else(|_| Err(anyhow!("no answer within {ASK_TIMEOUT:?}")))
}

/// The name of the kept program, which is the hash that the operator pinned it by; `None` for a program of the
/// operator's.
fn pin(source: &EnvoySource) -> Option<String> {
    match source {
        EnvoySource::Binary(_) => None,
        EnvoySource::Image { sha256, .. } | EnvoySource::Url { sha256, .. } => Some(sha256.clone()),
    }
}

/// The path where the configured program is or will be.
fn wanted(options: &Options) -> PathBuf {
    match (options.config.source(), Store::new(options)) {
        (EnvoySource::Binary(path), _) => path,
        (source, store) => store.path(&pin(&source).unwrap_or_default()),
    }
}

/// Removes kept programs that are not the configured one, if that one is the `program` that serves.
pub(super) fn remove_others(options: &Options, program: &PathBuf) {
    if *program == wanted(options) {
        Store::new(options).remove_others(pin(&options.config.source()).as_deref());
    }
}

/// Publishes the program to run: the configured one, and while that is being fetched, or when it never serves, the one
/// before it.
pub(super) async fn provide(
    options: &Options,
    program: &watch::Sender<Option<PathBuf>>,
    state: &EnvoyStatePublisher,
    problem: &watch::Sender<Option<String>>,
) -> Infallible {
    let looking = options.clone();
    let located = blocking(move || Ok(locate(&looking))).await;
    let path = match located {
        Ok(Located::Here(path)) => path,
        _ => {
            let looking = options.clone();
            let earlier = blocking(move || Ok(earlier(&looking))).await.ok().flatten();
            if let Some(earlier) = &earlier {
                let source = options.config.source();
                tracing::warn!(earlier = %earlier.display(), "{source} is not here yet: the Envoy before it serves");
            }
            program.send_replace(earlier);
            fetch_until_done(options, program, state, problem).await
        }
    };
    program.send_replace(Some(path));
    problem.send_replace(None);
    let failure = fallback::never_serves(state.subscribe()).await;
    let looking = options.clone();
    let kept = blocking(move || {
        let pin = pin(&looking.config.source());
        Ok(pin.and_then(|pin| Store::new(&looking).newest_but(&pin)))
    });
    if let Some(kept) = kept.await.ok().flatten() {
        let failure = format!("{} does not serve: {failure}", options.config.source());
        tracing::warn!(earlier = %kept.display(), "{failure}; the Envoy before it is started");
        program.send_replace(Some(kept));
        problem.send_replace(Some(failure));
    }
    std::future::pending().await
}

/// The program that serves while the configured one is not here: that of the Envoy that runs, or one that was kept
/// before.
pub fn earlier(options: &Options) -> Option<PathBuf> {
    let running = ledger::newest(&options.host, &options.paths).and_then(|record| record.program());
    running
        .filter(|path| Host::system().exists(path))
        .or_else(|| Store::new(options).newest_but(""))
}

/// The reference of the image that `reference` leads to now, with its digest; a tag can move.
///
/// # Errors
/// When the registry can't be asked, or not within 30 s, or has no image for this machine by that name.
pub async fn pinned(config: &EnvoyConfig, host: &Host, reference: &str) -> Result<String> {
    let access = access(host, &config.registry_config, &config.ca_file);
    let digest = answered(async { Image::open(&access, reference).await?.digest().await })
        .await
        .with_context(|| format!("failed to look for the image {reference}"))?;
    let name = reference.split('@').next().unwrap_or_default();
    Ok(format!("{name}@{digest}"))
}

/// Fetches the configured program, once, and tells of the bytes that are here where it comes out of an image.
///
/// # Errors
/// When it can't be had, or not within 15 minutes; names the source.
pub(crate) async fn fetch(options: &Options, tell: &mut (dyn FnMut(Progress) + Send)) -> Result<PathBuf> {
    let source = options.config.source();
    let fetched = timeout(FETCH_TIMEOUT, fetch_once(options, &source, tell)).await;
    let fetched = fetched.unwrap_or_else(|_| Err(anyhow!("not done within {FETCH_TIMEOUT:?}")));
    fetched.with_context(|| format!("failed to fetch {source}"))
}

/// Fetches until a fetch succeeds, and tells meanwhile how it goes.
async fn fetch_until_done(
    options: &Options,
    program: &watch::Sender<Option<PathBuf>>,
    state: &EnvoyStatePublisher,
    problem: &watch::Sender<Option<String>>,
) -> PathBuf {
    let source = options.config.source();
    let say = |progress: String| {
        if program.borrow().is_none() {
            state.fetching(progress);
        } else {
            problem.send_replace(Some(progress));
        }
    };
    let mut backoff = Backoff::new(MIN_RETRY_WAIT, MAX_RETRY_WAIT);
    loop {
        tracing::info!("fetching {source}");
        say(format!("fetching {source}"));
        let error = match fetch(options, &mut |_| ()).await {
            Ok(path) => {
                tracing::info!(program = %path.display(), "fetched {source}");
                return path;
            }
            Err(error) => format!("{error:#}"),
        };
        let wait = backoff.next_wait();
        tracing::warn!("{error}; tried again in {wait:.1?}");
        say(format!("{error}; tried again in {} s", wait.as_secs().max(1)));
        tokio::time::sleep(wait).await;
    }
}

async fn fetch_once(
    options: &Options,
    source: &EnvoySource,
    tell: &mut (dyn FnMut(Progress) + Send),
) -> Result<PathBuf> {
    let store = Store::new(options);
    match source {
        EnvoySource::Binary(path) => Ok(path.clone()),
        EnvoySource::Image {
            reference,
            sha256,
            registry_config,
            ca_file,
        } => {
            let access = access(&options.host, registry_config, ca_file);
            image::keep(&access, reference, sha256, &store, tell).await
        }
        EnvoySource::Url { url, sha256, ca_file } => {
            let mut fetched = store.receive()?;
            download::save(&options.host, url, ca_file.as_deref(), &mut fetched).await?;
            expect_pinned(&fetched, sha256)?;
            let pin = sha256.clone();
            let kept = blocking(move || store.keep(&pin, fetched, unpack::program)).await?;
            kept.context("the archive has no file `envoy`")
        }
    }
}

fn access(host: &Host, registry_config: &Option<PathBuf>, ca_file: &Option<PathBuf>) -> Access {
    Access {
        host: host.clone(),
        registry_config: registry_config.clone(),
        ca_file: ca_file.clone(),
    }
}

fn expect_pinned(fetched: &Staged, wanted: &str) -> Result<()> {
    let got = fetched.sha256();
    anyhow::ensure!(
        got == wanted,
        "it is not what envoy.sha256 pins: its SHA-256 is {got}, not {wanted} (what is there has changed, or the pin is of another file)"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
