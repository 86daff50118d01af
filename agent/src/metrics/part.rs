//! The page of metrics as a part: it runs nothing, and tells of itself how its sources are.

use crate::facts::SourceCounts;
use crate::part::{Metric, MetricKind, Part, Sample};

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
        read: |channels, _| {
            let scrapes = &channels.counts.scrapes;
            let sources = [("envoy", &scrapes.envoy), ("application", &scrapes.application)];
            let failures = |(name, source): (&str, &SourceCounts)| Sample::labeled_count([name], source.failures.get());
            sources.map(failures).to_vec()
        },
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
