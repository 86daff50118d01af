//! The verdict and the start as a part that runs nothing: what Prometheus is told of them.

use crate::part::{Metric, MetricKind, Part, Sample};

/// Tells of the verdict.
#[derive(Debug)]
pub(super) struct ReadinessPart;

impl Part for ReadinessPart {
    fn name(&self) -> &'static str {
        "verdict"
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}

const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_ready",
        help: "1 while the VM serves the mesh: what /healthz/ready and `status` say.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.health.borrow().ready),
    },
    Metric {
        name: "istio_vm_agent_problem",
        help: "1 for each problem of this moment, by its code in `status`.",
        kind: MetricKind::Gauge,
        labels: &["code"],
        read: |channels, _| {
            let mut codes = channels.health.borrow().codes.clone();
            codes.sort_unstable();
            codes.dedup();
            codes.iter().map(|code| Sample::labeled([code], 1.0)).collect()
        },
    },
    Metric {
        name: "istio_agent_startup_duration_seconds",
        help: "Time from the start of the agent until it was ready for the first time.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| {
            let ready = channels.startup.borrow().ready;
            ready
                .map(|ready| Sample::new(ready.as_secs_f64()))
                .into_iter()
                .collect()
        },
    },
    Metric {
        name: "istio_vm_agent_startup_phase_seconds",
        help: "Time that each part of the start was waited for, in this start: configuration, join, then the parts by their names.",
        kind: MetricKind::Gauge,
        labels: &["phase"],
        read: |channels, _| {
            let startup = channels.startup.borrow();
            let phases = startup.phases.iter();
            phases
                .map(|(phase, took)| Sample::labeled([phase], took.as_secs_f64()))
                .collect()
        },
    },
];
