//! What Prometheus is told of the rules.

use crate::facts::InterceptState;
use crate::part::{Metric, MetricKind, Sample};

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_rules",
        help: "Rules that redirect traffic to Envoy, by the backend that has them; 0 while none are in.",
        kind: MetricKind::Gauge,
        labels: &["backend"],
        read: |channels, _| match &*channels.intercept.borrow() {
            InterceptState::Active { backend, rules } => {
                let count = u32::try_from(*rules).unwrap_or(u32::MAX);
                vec![Sample::labeled([backend], f64::from(count))]
            }
            _ => vec![Sample::labeled(["none"], 0.0)],
        },
    },
    Metric {
        name: "istio_vm_agent_rule_repairs_total",
        help: "Times that the rules were put right, because something else had changed them or the host has changed.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.rule_repairs.get()),
    },
];
