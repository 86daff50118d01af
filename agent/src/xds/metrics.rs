//! Metrics of the streams, by Istio's names where it has them (istio/pkg/istio-agent/metrics).

use crate::facts::SnapshotUse;
use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_agent_istiod_connection_failures",
        help: "Attempts to reach istiod that failed.",
        kind: MetricKind::Untyped,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.xds.connection_failures.get()),
    },
    Metric {
        name: "istio_agent_istiod_disconnections",
        help: "Streams of istiod's that ended, each of which the agent opens again.",
        kind: MetricKind::Untyped,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.xds.istiod_disconnections.get()),
    },
    Metric {
        name: "istio_agent_envoy_disconnections",
        help: "Streams of Envoy's to the agent that ended.",
        kind: MetricKind::Untyped,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.xds.envoy_disconnections.get()),
    },
    Metric {
        name: "istio_agent_xds_proxy_responses",
        help: "Responses of istiod's that the agent received, those for itself included.",
        kind: MetricKind::Untyped,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.xds.responses.get()),
    },
    Metric {
        name: "istio_vm_agent_istiod_connected",
        help: "1 while an istiod answers.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.xds.borrow().connected_to.is_some()),
    },
    Metric {
        name: "istio_vm_agent_last_push_timestamp_seconds",
        help: "When istiod's last response came, to a second or so.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::moment(channels.xds.borrow().last_push),
    },
    Metric {
        name: "istio_vm_agent_nacks_total",
        help: "Responses of istiod's that Envoy refused.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.xds.refusals.get()),
    },
    Metric {
        name: "istio_vm_agent_refused_types",
        help: "Types of configuration (Cluster, Listener, ...) that Envoy refused and has not accepted since.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::count(channels.xds.borrow().nacks.len() as u64),
    },
    Metric {
        name: "istio_vm_agent_endpoint_clusters",
        help: "Clusters of the mesh in whose endpoints this VM is, as istiod told its Envoy last; 0: nobody calls it.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::count(channels.xds.borrow().listed_in.len() as u64),
    },
    Metric {
        name: "istio_vm_agent_snapshot_in_use",
        help: "1 while Envoy is served from what it accepted last, because no istiod answers.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.xds.borrow().snapshot.is_some()),
    },
    Metric {
        name: "istio_vm_agent_snapshot_written_timestamp_seconds",
        help: "When the snapshot that Envoy is served from was written; absent while it is not in use.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| {
            let written = |snapshot: &SnapshotUse| snapshot.written;
            Sample::moment(channels.xds.borrow().snapshot.as_ref().map(written))
        },
    },
    Metric {
        name: "istio_vm_agent_snapshot_failed",
        help: "1 while there is no snapshot of what Envoy has, for a start without istiod.",
        kind: MetricKind::Gauge,
        labels: &[],
        read: |channels, _| Sample::truth(channels.xds.borrow().snapshot_problem.is_some()),
    },
];
