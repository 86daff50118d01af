//! The agent's own metrics, as OpenMetrics by prometheus-client.

use std::fmt;
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use crate::part::{Channels, Metric, MetricKind, Sample, Value};

/// The metrics at a moment.
#[derive(Debug)]
struct Own {
    metrics: &'static [Metric],
    channels: Channels,
    now: SystemTime,
}

/// The text of all `metrics`, without the end that OpenMetrics wants.
pub(super) fn text(metrics: &[&'static [Metric]], channels: &Channels, now: SystemTime) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    for metrics in metrics {
        registry.register_collector(Box::new(Own {
            metrics,
            channels: channels.clone(),
            now,
        }));
    }
    let mut text = String::new();
    text::encode_registry(&mut text, &registry)?;
    Ok(text)
}

impl Collector for Own {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for metric in self.metrics {
            let samples = (metric.read)(&self.channels, self.now);
            if samples.is_empty() {
                continue;
            }
            let (name, kind) = described(metric);
            let mut encoder = encoder.encode_descriptor(name, metric.help, None, kind)?;
            match samples.as_slice() {
                [
                    Sample {
                        value: Value::Histogram(histogram),
                        ..
                    },
                ] => histogram.encode(encoder)?,
                samples => samples
                    .iter()
                    .try_for_each(|sample| encode(&mut encoder, metric, sample))?,
            }
        }
        Ok(())
    }
}

/// OpenMetrics' name of the family, which of a counter is without `_total`.
fn described(metric: &Metric) -> (&'static str, MetricType) {
    match metric.kind {
        MetricKind::Counter => (metric.name.trim_end_matches("_total"), MetricType::Counter),
        MetricKind::Gauge => (metric.name, MetricType::Gauge),
        MetricKind::Histogram => (metric.name, MetricType::Histogram),
        MetricKind::Untyped => (metric.name, MetricType::Unknown),
    }
}

fn encode(encoder: &mut MetricEncoder<'_>, metric: &Metric, sample: &Sample) -> fmt::Result {
    let values = sample.labels.iter().map(|value| escaped(value));
    let labels: Vec<(&str, String)> = metric.labels.iter().copied().zip(values).collect();
    // Braces without a label are no OpenMetrics.
    match labels.is_empty() {
        true => encode_number(encoder, metric.kind, &sample.value),
        false => encode_number(&mut encoder.encode_family(&labels)?, metric.kind, &sample.value),
    }
}

fn encode_number(encoder: &mut MetricEncoder<'_>, kind: MetricKind, value: &Value) -> fmt::Result {
    match (value, kind) {
        (Value::Number(number), MetricKind::Counter) => encoder.encode_counter::<NoLabelSet, f64, f64>(number, None),
        (Value::Number(number), _) => encoder.encode_gauge(number),
        // A histogram is alone in its family.
        (Value::Histogram(_), _) => Err(fmt::Error),
    }
}

/// prometheus-client writes a label's value as it is.
fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::tests::channels;
    use super::*;

    #[test]
    fn metric_of_a_part_is_encoded_with_its_kind_and_labels() {
        const METRICS: &[Metric] = &[
            Metric {
                name: "a_total",
                help: "A.",
                kind: MetricKind::Counter,
                labels: &["which"],
                read: |_, _| vec![Sample::labeled_count(["x\"y"], 3)],
            },
            Metric {
                name: "b",
                help: "B.",
                kind: MetricKind::Untyped,
                labels: &[],
                read: |_, _| Sample::one(0.5),
            },
            Metric {
                name: "absent",
                help: "C.",
                kind: MetricKind::Gauge,
                labels: &[],
                read: |_, _| Vec::new(),
            },
        ];
        let told = text(&[METRICS], &channels(), SystemTime::UNIX_EPOCH).unwrap();
        let wanted = "# HELP a A.\n# TYPE a counter\na_total{which=\"x\\\"y\"} 3.0\n\
                      # HELP b B.\n# TYPE b unknown\nb 0.5\n";
        assert_eq!(told, wanted);
    }
}
