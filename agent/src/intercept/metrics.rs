//! Metrics of the rules.

use std::collections::BTreeMap;

use crate::facts::{InterceptState, RulePackets};
use crate::part::{Metric, MetricKind, Sample};

/// Most rules that are told of.
const MOST: usize = 256;

pub(super) const METRICS: &[Metric] = &[
    Metric {
        name: "istio_vm_agent_rules",
        help: "Rules that redirect traffic to Envoy, by the backend that has them; 0 while none are in.",
        kind: MetricKind::Gauge,
        labels: &["backend"],
        read: |channels, _| match &*channels.intercept.borrow() {
            InterceptState::Active { backend, rules, .. } => {
                let count = u32::try_from(*rules).unwrap_or(u32::MAX);
                vec![Sample::labeled([backend], f64::from(count))]
            }
            _ => vec![Sample::labeled(["none"], 0.0)],
        },
    },
    Metric {
        name: "istio_vm_agent_rule_packets_total",
        help: "Packets that met each rule of the agent's since it was put in, of a redirection the first of each connection; of at most 256 rules, and not with legacy iptables.",
        kind: MetricKind::Counter,
        labels: &["family", "chain", "rule"],
        read: |channels, _| packets(&channels.rule_packets.borrow()),
    },
    Metric {
        name: "istio_vm_agent_rule_repairs_total",
        help: "Times that the rules were put right, because something else had changed them or the host has changed.",
        kind: MetricKind::Counter,
        labels: &[],
        read: |channels, _| Sample::count(channels.counts.rule_repairs.get()),
    },
];

/// Rules that are written alike are one.
fn packets(rules: &[RulePackets]) -> Vec<Sample> {
    let mut sums = BTreeMap::<[&str; 3], u64>::new();
    for it in rules {
        let sum = sums.entry([&it.family, &it.chain, &it.rule]).or_default();
        *sum = sum.saturating_add(it.packets);
    }
    let sample = |(labels, packets)| Sample::labeled_count(labels, packets);
    sums.into_iter().take(MOST).map(sample).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::part::Value;

    #[test]
    fn rules_that_are_written_alike_are_one_and_their_number_is_bounded() {
        let rule = |number: usize| RulePackets {
            family: "inet".to_owned(),
            chain: "output".to_owned(),
            rule: format!("tcp dport {number} return"),
            packets: 2,
        };
        let told = packets(&[rule(1), rule(1)]);
        assert!(
            matches!(
                told.as_slice(),
                [Sample {
                    value: Value::Number(4.0),
                    ..
                }]
            ),
            "{told:?}"
        );
        let many: Vec<_> = (0..1000).map(rule).collect();
        assert_eq!(packets(&many).len(), MOST);
    }
}
