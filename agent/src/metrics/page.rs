//! The page: who is asked for it, what is on it, and for how long it serves.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Error, Result};
use bytes::Bytes;
use futures_util::future::{join, join_all};
use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::exposition::{Format, Merged};
use super::part::ABSENT;
use super::targets::{Target, Targets, variable};
use super::{own, source};
use crate::config::ports;
use crate::facts::{Membership, SourceCounts};
use crate::part::{Answer, Audience, Channels, Metric, Page, typed};

/// Time for which a page serves all who ask: the memory of pages on their way is bounded by how often one is made.
const FRESH: Duration = Duration::from_secs(2);
/// Most of Envoy's text, in bytes: some 60,000 series.
const MAX_ENVOY: usize = 12 << 20;
/// Most of the application's texts in all, in bytes.
const MAX_APPLICATION: usize = 8 << 20;

/// The pages `/metrics` and `/stats/prometheus`, which are one.
pub fn pages(metrics: Vec<&'static [Metric]>) -> Vec<Page> {
    let pages = Arc::new(Pages {
        metrics,
        latest: Mutex::default(),
    });
    ["/metrics", "/stats/prometheus"]
        .map(|path| {
            let pages = Arc::clone(&pages);
            Page::new(path, audience, move |channels, request| {
                Arc::clone(&pages).answer(channels, request)
            })
        })
        .into()
}

/// As in Istio, METRICS_LOCALHOST_ACCESS_ONLY closes it to the network.
fn audience(channels: &Channels) -> Audience {
    match is_true(&channels.membership(), "METRICS_LOCALHOST_ACCESS_ONLY") {
        true => Audience::ThisHost,
        false => Audience::Everyone,
    }
}

fn is_true(membership: &Membership, name: &str) -> bool {
    variable(membership, name).is_some_and(|value| value == "true")
}

#[derive(Debug)]
struct Pages {
    metrics: Vec<&'static [Metric]>,
    /// The last page. Whoever comes while one is made waits for it.
    latest: Mutex<Option<Made>>,
}

#[derive(Clone, Debug)]
struct Made {
    at: Instant,
    format: Format,
    body: Bytes,
}

impl Pages {
    async fn answer(self: Arc<Self>, channels: Channels, request: Parts) -> Answer {
        let accept = request.headers.get(ACCEPT).map(HeaderValue::to_str);
        let format = Format::accepted(accept.and_then(Result::ok).unwrap_or_default());
        let mut latest = self.latest.lock().await;
        let is_fresh = |made: &&Made| made.format == format && made.at.elapsed() < FRESH;
        let body = match latest.as_ref().filter(is_fresh) {
            Some(made) => made.body.clone(),
            None => {
                let body = Bytes::from(make(&self.metrics, &channels, format).await);
                let at = Instant::now();
                latest.insert(Made { at, format, body }).body.clone()
            }
        };
        typed(StatusCode::OK, format.content_type(), body)
    }
}

/// The text of a new page. A source that fails is not on it, and is counted on it.
async fn make(metrics: &[&'static [Metric]], channels: &Channels, format: Format) -> String {
    let (membership, counts) = (channels.membership(), &channels.counts.scrapes);
    counts.total.inc();
    let (envoy, application) = join(envoy(&membership, format), application(&membership, format)).await;
    let names = metrics.iter().copied().flatten().map(|metric| metric.name);
    let mut sources = Merged::beside(names, format);
    judge(&counts.envoy, add(&mut sources, envoy));
    judge(&counts.application, add(&mut sources, application));
    let mut page = Merged::new(format);
    let own = own::text(metrics, channels, SystemTime::now()).map_err(Error::from);
    if let Err(error) = own.and_then(|own| page.add(&own, Format::OpenMetrics)) {
        tracing::error!("failed to write the agent's own metrics: {error:#}");
    }
    page.finish(sources)
}

/// As with Istio, PILOT_AGENT_MERGE_ENVOY_STATS=false leaves Envoy to those who scrape 15090.
async fn envoy(membership: &Membership, format: Format) -> Vec<Result<source::Answer>> {
    if variable(membership, "PILOT_AGENT_MERGE_ENVOY_STATS").is_some_and(|value| value == "false") {
        return Vec::new();
    }
    let target = Target {
        port: ports::ENVOY_METRICS,
        path: "/stats/prometheus".to_owned(),
    };
    vec![source::ask(&target, format, MAX_ENVOY).await]
}

async fn application(membership: &Membership, format: Format) -> Vec<Result<source::Answer>> {
    match Targets::of(membership) {
        Ok(targets) => {
            let max = MAX_APPLICATION / targets.len().max(1);
            join_all(targets.iter().map(|target| source::ask(target, format, max))).await
        }
        Err(error) => vec![Err(error)],
    }
}

/// Adds all that is good; tells whether there was something, and what was bad.
fn add(page: &mut Merged, answers: Vec<Result<source::Answer>>) -> Option<Result<()>> {
    let added = answers.into_iter().map(|answer| {
        let answer = answer?;
        page.add(&answer.text, answer.format)
            .with_context(|| format!("the metrics of {} are left out", answer.place))
    });
    added.reduce(Result::and)
}

/// Counts a source, where there is one; a failure that goes on is one line of the log.
fn judge(counts: &SourceCounts, added: Option<Result<()>>) {
    match added {
        Some(Ok(())) => {
            counts.is_up.set(1);
        }
        Some(Err(error)) => {
            if counts.failures.inc() == 0 || counts.is_up.get() == 1 {
                tracing::warn!("{error:#}");
            }
            counts.is_up.set(0);
        }
        None => {
            counts.is_up.set(ABSENT);
        }
    }
}
