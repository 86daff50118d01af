//! Metrics of the application's probe.

use crate::facts::ProbeState;
use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_application_healthy",
        help: "1 while the application is healthy by its probe, 0 while it is not or not known to be; absent without a probe.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| match &*channels.probe.borrow() {
            ProbeState::NotConfigured => Vec::new(),
            state => Sample::truth(*state == ProbeState::Healthy),
        },
    },
    Metric {
        name: "istio_vm_agent_probes_total",
        help: "Probes of the application while Envoy serves, by their result: success, failure.",
        kind: MetricKind::Counter,
        labels: &["result"],
        read: |channels, _| {
            let counts = &channels.counts.probe;
            let results = [("success", &counts.successes), ("failure", &counts.failures)];
            let samples = results.map(|(result, count)| Sample::labeled_count([result], count.get()));
            samples.to_vec()
        },
    },
];
