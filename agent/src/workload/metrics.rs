//! Metrics of the containers.

use crate::facts::ContainerState;
use crate::part::{Channels, Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_container_running",
        help: "1 while the container of an application runs; absent where none is configured.",
        kind: MetricKind::Gauge,
        labels: &["workload"],
        read: |channels, _| {
            of_each(channels, |state| match state {
                ContainerState::NotConfigured => None,
                state => Some(u64::from(matches!(state, ContainerState::Running { .. }))),
            })
        },
    },
    Metric {
        name: "istio_vm_agent_container_restarts_total",
        help: "Restarts of an application's container by this agent; absent while it does not run.",
        kind: MetricKind::Counter,
        labels: &["workload"],
        read: |channels, _| {
            of_each(channels, |state| match state {
                ContainerState::Running { restarts, .. } => Some(u64::from(*restarts)),
                _ => None,
            })
        },
    },
];

fn of_each(channels: &Channels, read: impl Fn(&ContainerState) -> Option<u64>) -> Vec<Sample> {
    let workloads = channels.workloads.iter();
    workloads
        .filter_map(|it| Some(Sample::labeled_count([it.name.as_str()], read(&it.container.borrow())?)))
        .collect()
}
