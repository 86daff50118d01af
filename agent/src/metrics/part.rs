//! The page of metrics as a part: it runs nothing, and tells of itself how its sources are.

use std::time::{Duration, SystemTime};

use crate::facts::{MissingMetrics, SourceCounts};
use crate::part::{Changes, Channels, Code, Context, Metric, MetricKind, Part, Problems, Sample, changes_of};

/// Time for which what a page lacked is told of: whoever scrapes does so more often, and who looked once is past.
const LASTS: Duration = Duration::from_secs(300);

/// Value of `SourceCounts::is_up` where there is no such source.
pub(super) const ABSENT: i64 = -1;

/// Tells how the sources of the page are.
#[derive(Debug)]
pub struct MetricsPart;

impl Part for MetricsPart {
    fn name(&self) -> &'static str {
        "metrics"
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }

    fn changes(&self, channels: &Channels) -> Vec<Changes> {
        vec![changes_of(&channels.missing_metrics)]
    }

    fn problems(&self, context: &Context, now: SystemTime) -> Problems {
        problems(context.channels.missing_metrics.borrow().as_ref(), now)
    }
}

fn problems(missing: Option<&MissingMetrics>, now: SystemTime) -> Problems {
    let lasts = |missing: &&MissingMetrics| now.duration_since(missing.at).unwrap_or_default() < LASTS;
    let reason = missing.filter(lasts).map(|missing| missing.reason.clone());
    Problems::default().amiss(Code::MetricsMissing, reason)
}

/// One sample for each source, by its name.
fn by_source(channels: &Channels, read: fn(&SourceCounts) -> u64) -> Vec<Sample> {
    let scrapes = &channels.counts.scrapes;
    let sources = [("envoy", &scrapes.envoy), ("application", &scrapes.application)];
    let sample = |(name, source)| Sample::labeled_count([name], read(source));
    sources.map(sample).to_vec()
}

const METRICS: &[Metric] = &[
    Metric {
        name: "istio_agent_scrapes_total",
        help: "Pages of metrics that were made; one serves all who ask within two seconds.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.scrapes.total.get()),
    },
    Metric {
        name: "istio_agent_scrape_failures_total",
        help: "Pages of metrics on which something is missing of a source: envoy, application.",
        kind: MetricKind::Counter,
        labels: &["type"],
        read: |channels, _| by_source(channels, |source| source.failures.get()),
    },
    Metric {
        name: "istio_vm_agent_scrape_samples_dropped_total",
        help: "Samples that were left out of the page: Prometheus would refuse all of it for them, or they have names of others.",
        kind: MetricKind::Counter,
        labels: &["type"],
        read: |channels, _| by_source(channels, |source| source.dropped.get()),
    },
    Metric {
        name: "istio_vm_agent_scrape_source_up",
        help: "1 for a source of this page that is on it whole, 0 for one that is not.",
        kind: MetricKind::Gauge,
        labels: &["type"],
        read: |channels, _| {
            let scrapes = &channels.counts.scrapes;
            let sources = [("envoy", &scrapes.envoy), ("application", &scrapes.application)];
            let present = sources.iter().filter(|(_, source)| source.is_up.get() != ABSENT);
            present
                .map(|(name, source)| Sample::labeled([name], f64::from(u8::from(source.is_up.get() == 1))))
                .collect()
        },
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_a_page_is_told_until_nobody_scrapes_any_more() {
        let at = SystemTime::UNIX_EPOCH;
        let missing = MissingMetrics {
            reason: "no answer".to_owned(),
            at,
        };
        let told = problems(Some(&missing), at + LASTS / 2);
        assert_eq!(told.texts(), (vec![], vec!["no answer"]));
        assert_eq!(problems(Some(&missing), at + LASTS), Problems::default());
        assert_eq!(problems(None, at), Problems::default());
    }
}
