//! What Prometheus is told of the service.

use crate::facts::ServiceState;
use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_service_running",
        help: "1 while the application's systemd service runs; absent where none is configured.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| match &*channels.service.borrow() {
            ServiceState::NotConfigured => Vec::new(),
            state => Sample::truth(matches!(state, ServiceState::Running { .. })),
        },
    },
    Metric {
        name: "istio_vm_agent_service_restarts_total",
        help: "Restarts of the application's systemd service by this agent, not by systemd; absent while it does not run.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| match &*channels.service.borrow() {
            ServiceState::Running { restarts, .. } => Sample::count(u64::from(*restarts)),
            _ => Vec::new(),
        },
    },
];
