//! A metric of a part: its name and words, and how its values are read from the facts when Prometheus asks.

use std::time::{Duration, SystemTime};

use prometheus_client::metrics::histogram::Histogram;

use super::Channels;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MetricKind {
    /// Goes up while the agent runs; its name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by bucket.
    Histogram,
    /// A counter of Istio's whose name lacks `_total`: OpenMetrics has no such counter.
    Untyped,
}

impl MetricKind {
    /// Name of the kind in the document of all metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
            Self::Untyped => "untyped",
        }
    }
}

/// One metric. It has no state of its own: what is read is what `status` reads.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Name on the page, whose end is its unit: `_seconds`, `_timestamp_seconds`, or a count where there is none.
    pub name: &'static str,
    /// One line for people.
    pub help: &'static str,
    /// Kind.
    pub kind: MetricKind,
    /// Names of the labels that every sample has. Their values are few: none is a peer's to choose.
    pub labels: &'static [&'static str],
    /// Values at a moment; none where there is nothing to tell.
    pub read: fn(&Channels, SystemTime) -> Vec<Sample>,
}

/// One value of a metric.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Values of the labels, in the order of their names.
    pub labels: Vec<String>,
    /// The value.
    pub value: Value,
}

/// The value of a sample.
#[derive(Clone, Debug)]
pub enum Value {
    /// The value of all kinds but histograms.
    Number(f64),
    /// All buckets.
    Histogram(Histogram),
}

impl Sample {
    /// A value without labels.
    pub fn new(value: f64) -> Self {
        Self::labeled([], value)
    }

    /// A value with labels.
    pub fn labeled<const N: usize>(labels: [&str; N], value: f64) -> Self {
        Self {
            labels: labels.map(str::to_owned).to_vec(),
            value: Value::Number(value),
        }
    }

    /// A count with labels.
    pub fn labeled_count<const N: usize>(labels: [&str; N], count: u64) -> Self {
        Self::labeled(labels, double(count))
    }

    /// One value without labels.
    pub fn one(value: f64) -> Vec<Self> {
        vec![Self::new(value)]
    }

    /// A count.
    pub fn count(count: u64) -> Vec<Self> {
        Self::one(double(count))
    }

    /// 1 for what is so, 0 for what is not.
    pub fn truth(is_so: bool) -> Vec<Self> {
        Self::one(f64::from(u8::from(is_so)))
    }

    /// A moment, in seconds since 1970; nothing where there was none.
    pub fn moment(moment: Option<SystemTime>) -> Vec<Self> {
        moment.map(seconds_since_1970).map(Self::new).into_iter().collect()
    }

    /// A histogram.
    pub fn histogram(histogram: &Histogram) -> Vec<Self> {
        vec![Self {
            labels: Vec::new(),
            value: Value::Histogram(histogram.clone()),
        }]
    }
}

/// Seconds from `now` to `then`; negative once that is over.
pub fn seconds_until(then: SystemTime, now: SystemTime) -> f64 {
    match then.duration_since(now) {
        Ok(left) => left.as_secs_f64(),
        Err(over) => -over.duration().as_secs_f64(),
    }
}

/// Prometheus' numbers are doubles: beyond 2^53 a count is no exact one any more.
fn double(count: u64) -> f64 {
    count as f64
}

fn seconds_since_1970(moment: SystemTime) -> f64 {
    moment
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs_f64()
}
