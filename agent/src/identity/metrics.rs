//! Metrics of the certificate (istio/security/pkg/nodeagent/cache/monitoring.go).

use crate::part::{Metric, MetricKind, Sample, seconds_until};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_agent_cert_expiry_seconds",
        help: "Time until the certificate ends; negative once it has.",
        kind: MetricKind::Gauge,
        labels: &["resource_name"],
        read: |channels, now| match &*channels.credentials.borrow() {
            Some(held) => vec![Sample::labeled(["default"], seconds_until(held.not_after, now))],
            None => Vec::new(),
        },
    },
    Metric {
        name: "istio_vm_agent_cert_lifetime_seconds",
        help: "Time from the start of the certificate to its end; it is renewed about half-way.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| match &*channels.credentials.borrow() {
            Some(held) => Sample::one(seconds_until(held.not_after, held.not_before)),
            None => Vec::new(),
        },
    },
    Metric {
        name: "istio_vm_agent_cert_renewal_failing",
        help: "1 while a new certificate is due and can't be had.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.identity_problem.borrow().is_some()),
    },
];
