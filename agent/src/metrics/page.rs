//! The page: who is asked for it, what is on it, and for how long it serves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt, Shared, join_all, join3};
use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use tokio::time::Instant;

use super::exposition::Merged;
use super::format::Format;
use super::part::ABSENT;
use super::targets::{Target, Targets, variable};
use super::{own, source};
use crate::config::ports;
use crate::facts::{Membership, MissingMetrics, SourceCounts};
use crate::part::{Answer, Audience, Channels, Metric, Page, typed};
use crate::supervise::Scope;

/// Time for which a page serves all who ask for its format: the memory of pages on their way is bounded by how often one
/// is made.
const FRESH: Duration = Duration::from_secs(2);
/// Longest time that a page is in the making: each source's, and some. One that takes longer has panicked.
const LONGEST: Duration = Duration::from_secs(5);
/// Most of Envoy's text, in bytes: some 60,000 series.
const MAX_ENVOY: usize = 12 << 20;
/// Most of the application's texts in all, in bytes.
const MAX_APPLICATION: usize = 8 << 20;

/// Beginnings of names that are the agent's own, which nobody else may tell of.
const OWN: [&str; 2] = ["istio_agent_", "istio_vm_agent_"];
/// Beginnings of names that are the mesh's, which the application may not tell of: whoever reads `istio_requests_total`
/// takes Envoy's word for it.
const MESH: [&str; 2] = ["envoy_", "istio_"];

/// Brings facts up to date before a page is made of them.
pub type Refresh = Box<dyn Fn(Channels) -> BoxFuture<'static, ()> + Send + Sync>;

/// The pages `/metrics` and `/stats/prometheus`, which are one.
pub fn pages(metrics: Vec<&'static [Metric]>, refresh: Refresh) -> Vec<Page> {
    let pages = Arc::new(Pages {
        metrics: metrics.into(),
        refresh,
        text: Slot::default(),
        open_metrics: Slot::default(),
    });
    ["/metrics", "/stats/prometheus"]
        .map(|path| {
            let pages = Arc::clone(&pages);
            Page::new(path, audience, move |scope, channels, request| {
                Arc::clone(&pages).answer(scope, channels, request)
            })
        })
        .into()
}

/// The audience of the page: METRICS_LOCALHOST_ACCESS_ONLY closes it to the network, as in Istio.
fn audience(channels: &Channels) -> Audience {
    match is_true(&channels.membership(), "METRICS_LOCALHOST_ACCESS_ONLY") {
        true => Audience::ThisHost,
        false => Audience::Everyone,
    }
}

fn is_true(membership: &Membership, name: &str) -> bool {
    variable(membership, name).is_some_and(|value| value == "true")
}

struct Pages {
    metrics: Arc<[&'static [Metric]]>,
    refresh: Refresh,
    text: Slot,
    open_metrics: Slot,
}

/// The last page of one format, or the one that is being made.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<Making>>);

/// A page in the making, which all who ask meanwhile wait for. It goes on when they go away, so that nobody has it begun
/// anew by asking again and again.
#[derive(Clone, Debug)]
struct Making {
    began: Instant,
    made: Shared<BoxFuture<'static, Made>>,
}

#[derive(Clone, Debug)]
struct Made {
    at: Instant,
    body: Bytes,
}

impl Slot {
    /// The page at hand, else a new one, which `scope` makes.
    async fn page(&self, scope: &Scope, make: impl Future<Output = String> + Send + 'static) -> Bytes {
        let making = {
            let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            match latest.as_ref().filter(|making| making.serves()) {
                Some(making) => making.made.clone(),
                None => latest.insert(Making::begin(scope, make)).made.clone(),
            }
        };
        making.await.body
    }
}

impl Making {
    fn begin(scope: &Scope, make: impl Future<Output = String> + Send + 'static) -> Self {
        let made = make.map(|text| Made {
            at: Instant::now(),
            body: Bytes::from(text),
        });
        let made = made.boxed().shared();
        scope.spawn(made.clone().map(drop));
        Self {
            began: Instant::now(),
            made,
        }
    }

    fn serves(&self) -> bool {
        match self.made.peek() {
            Some(made) => made.at.elapsed() < FRESH,
            None => self.began.elapsed() < LONGEST,
        }
    }
}

impl Pages {
    async fn answer(self: Arc<Self>, scope: Scope, channels: Channels, request: Parts) -> Answer {
        let accept = request.headers.get(ACCEPT).map(HeaderValue::to_str);
        let format = Format::accepted(accept.and_then(Result::ok).unwrap_or_default());
        let slot = match format {
            Format::Text => &self.text,
            Format::OpenMetrics => &self.open_metrics,
        };
        let refreshed = (self.refresh)(channels.clone());
        let made = make(Arc::clone(&self.metrics), refreshed, channels, format);
        let body = slot.page(&scope, made).await;
        typed(StatusCode::OK, format.content_type(), body)
    }
}

/// The text of a new page. A source that fails is not on it, and is counted on it.
async fn make(
    metrics: Arc<[&'static [Metric]]>,
    refreshed: BoxFuture<'static, ()>,
    channels: Channels,
    format: Format,
) -> String {
    let (membership, counts) = (channels.membership(), &channels.counts.scrapes);
    counts.total.inc();
    let (envoy, application) = (envoy(&membership, format), application(&membership, format));
    let (envoy, application, ()) = join3(envoy, application, refreshed).await;
    let names = metrics.iter().copied().flatten().map(|metric| metric.name);
    let mut sources = Merged::beside(names, format);
    let missing = [
        judge(&counts.envoy, add(&mut sources, envoy, &OWN, &counts.envoy)),
        judge(
            &counts.application,
            add(&mut sources, application, &MESH, &counts.application),
        ),
    ];
    let at = SystemTime::now();
    let missing = missing.into_iter().flatten().next();
    let missing = missing.map(|reason| MissingMetrics { reason, at });
    channels.missing_metrics.send_replace(missing);
    let mut page = Merged::new(format);
    match own::text(&metrics, &channels, at) {
        Ok(own) => {
            page.add(&own, Format::OpenMetrics, &[]);
        }
        Err(error) => tracing::error!("failed to write the agent's own metrics: {error:#}"),
    }
    page.finish(sources)
}

/// Envoy's answers; none where PILOT_AGENT_MERGE_ENVOY_STATS=false leaves Envoy to those who scrape 15090, as with
/// Istio.
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

/// Adds all that is sound; tells whether there was something, and what was not.
fn add(
    page: &mut Merged,
    answers: Vec<Result<source::Answer>>,
    reserved: &[&str],
    counts: &SourceCounts,
) -> Option<Result<()>> {
    let added = answers.into_iter().map(|answer| {
        let source::Answer { text, format, place } = answer?;
        let dropped = page.add(&text, format, reserved);
        counts.dropped.inc_by(dropped.count);
        match dropped.first {
            None => Ok(()),
            Some((line, reason)) => Err(anyhow!(
                "{} samples of {place} are left out of the page of metrics: line {line}: {reason}",
                dropped.count
            )),
        }
    });
    added.reduce(Result::and)
}

/// Counts a source, where there is one, and tells what is missing of it; a failure that goes on is one line of the log.
fn judge(counts: &SourceCounts, added: Option<Result<()>>) -> Option<String> {
    let was_up = counts
        .is_up
        .set(added.as_ref().map_or(ABSENT, |added| i64::from(added.is_ok())));
    let error = added?.err()?;
    if counts.failures.inc() == 0 || was_up == 1 {
        tracing::warn!("{error:#}");
    }
    Some(format!("{error:#}"))
}
