//! Metrics of Envoy's life; those of its traffic Envoy has itself.

use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_envoy_ready",
        help: "1 while Envoy serves.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.envoy.borrow().is_ready()),
    },
    Metric {
        name: "istio_vm_agent_envoy_restarts_total",
        help: "Starts of an Envoy in place of one that had died.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.envoy.restarts.get()),
    },
    Metric {
        name: "istio_vm_agent_envoy_takeovers_total",
        help: "Starts of an Envoy beside one that serves, to take over from it.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.envoy.takeovers.get()),
    },
    Metric {
        name: "istio_vm_agent_envoy_restart_budget_spent",
        help: "1 while Envoy is started at the slowest pace, because it died more often than envoy.restart_budget.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.counts.envoy.slowed.get() > 0),
    },
    Metric {
        name: "istio_vm_agent_envoy_successor_pending",
        help: "1 while another Envoy is wanted and does not serve yet.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.envoy.borrow().successor().is_some()),
    },
];
