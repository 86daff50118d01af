//! Metrics of DNS, by Istio's names (istio/pkg/dns/client/monitoring.go).

use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_agent_dns_requests_total",
        help: "DNS queries of this VM that the agent read.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.dns.requests.get()),
    },
    Metric {
        name: "istio_agent_dns_upstream_requests_total",
        help: "DNS queries that the mesh has no answer to, handed on to the VM's own servers.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.dns.upstream_requests.get()),
    },
    Metric {
        name: "istio_agent_dns_upstream_failures_total",
        help: "DNS queries that were handed on and that no server answered.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.dns.upstream_failures.get()),
    },
    Metric {
        name: "istio_vm_agent_dns_kept_answers_total",
        help: "DNS queries that the mesh has no answer to, answered by what the VM's own servers had said before.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.dns.kept_answers.get()),
    },
    Metric {
        name: "istio_agent_dns_upstream_request_duration_seconds",
        help: "Time to the answer of the VM's own DNS servers, or to the end of the wait for one.",
        kind: MetricKind::Histogram,
        labels: &[],
        read: |channels, _| Sample::histogram(&channels.counts.dns.upstream_seconds),
    },
    Metric {
        name: "istio_vm_agent_mesh_names",
        help: "Hosts in the name table that istiod gave last.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| {
            let names = channels.names.borrow().as_ref().map(|table| table.names.len());
            names.map_or_else(Vec::new, |names| Sample::count(names as u64))
        },
    },
];
