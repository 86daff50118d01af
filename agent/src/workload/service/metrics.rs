//! Metrics of the services.

use crate::facts::ServiceState;
use crate::part::{Channels, Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_service_running",
        help: "1 while the systemd service of an application runs; absent where none is configured.",
        kind: MetricKind::Gauge,
        labels: &["workload"],
        read: |channels, _| {
            of_each(channels, |state| match state {
                ServiceState::NotConfigured => None,
                state => Some(u64::from(matches!(state, ServiceState::Running { .. }))),
            })
        },
    },
    Metric {
        name: "istio_vm_agent_service_restarts_total",
        help: "Restarts of an application's systemd service by this agent, not by systemd; absent while it does not run.",
        kind: MetricKind::Counter,
        labels: &["workload"],
        read: |channels, _| {
            of_each(channels, |state| match state {
                ServiceState::Running { restarts, .. } => Some(u64::from(*restarts)),
                _ => None,
            })
        },
    },
];

fn of_each(channels: &Channels, read: impl Fn(&ServiceState) -> Option<u64>) -> Vec<Sample> {
    let workloads = channels.workloads.iter();
    workloads
        .filter_map(|it| Some(Sample::labeled_count([it.name.as_str()], read(&it.service.borrow())?)))
        .collect()
}
