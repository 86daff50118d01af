//! What Prometheus is told of the container.

use crate::facts::ContainerState;
use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_container_running",
        help: "1 while the application's container runs; absent where none is configured.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| match &*channels.container.borrow() {
            ContainerState::NotConfigured => Vec::new(),
            state => Sample::truth(matches!(state, ContainerState::Running { .. })),
        },
    },
    Metric {
        name: "istio_vm_agent_container_restarts_total",
        help: "Restarts of the application's container by this agent; absent while it does not run.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| match &*channels.container.borrow() {
            ContainerState::Running { restarts, .. } => Sample::count(u64::from(*restarts)),
            _ => Vec::new(),
        },
    },
];
