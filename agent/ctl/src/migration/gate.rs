//! The steps of a whole run, and what the pods must show between two of them.

use std::time::Duration;

use serde::Deserialize;

use super::names::{self, Share};

/// The way of a whole run.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Run {
    /// Shares of the pods, in their order.
    pub(crate) steps: Vec<Share>,
    /// Time for which the gate must hold in each step.
    #[serde(deserialize_with = "names::duration")]
    pub(crate) hold: Duration,
    /// The command that runs before each step, word by word; when it fails, the run ends and nothing is moved.
    pub(crate) before: Vec<String>,
    /// The command that runs after each step that the gate found good; when it fails, the run ends there.
    pub(crate) after: Vec<String>,
}

impl Default for Run {
    fn default() -> Self {
        let steps = [1, 5, 20, 50, 100];
        Self {
            steps: steps
                .into_iter()
                .filter_map(|step| Share::try_from(step).ok())
                .collect(),
            hold: Duration::from_secs(300),
            before: Vec::new(),
            after: Vec::new(),
        }
    }
}

impl Run {
    pub(super) fn problem(&self) -> Option<String> {
        let rises = self.steps.windows(2).all(|pair| pair[0] < pair[1]);
        let starts = self.steps.first().is_some_and(|first| *first > Share::NONE);
        (!rises || !starts).then(|| "run.steps: must rise from above 0".to_owned())
    }
}

/// The limits between going on and going back.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Gate {
    /// The series that are asked for.
    pub(crate) metrics: Metrics,
    /// The least part of the pods' calls that must succeed.
    pub(crate) success: f64,
    /// The part by which the pods may succeed less than the VM does in the same window.
    pub(crate) worse_than_vm: f64,
    /// The longest 99th percentile of the pods.
    #[serde(deserialize_with = "optional_duration")]
    pub(crate) p99: Option<Duration>,
    /// The most that the pods' 99th percentile may be of the VM's, once it is longer by `p99_slack`.
    pub(crate) p99_ratio: f64,
    /// The time by which the pods' 99th percentile may always be longer: callers may be nearer to the VM, and a percentile
    /// is no finer than the buckets of its histogram.
    #[serde(deserialize_with = "names::duration")]
    pub(crate) p99_slack: Duration,
    /// Calls of the pods in the window without which there is no verdict.
    pub(crate) min_requests: u64,
    /// The time that is judged at once.
    #[serde(deserialize_with = "names::duration")]
    pub(crate) window: Duration,
    pub(crate) on_failure: OnFailure,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            metrics: Metrics::Istio,
            success: 0.999,
            worse_than_vm: 0.001,
            p99: None,
            p99_ratio: 1.5,
            p99_slack: Duration::from_millis(50),
            min_requests: 200,
            window: Duration::from_secs(60),
            on_failure: OnFailure::Return,
        }
    }
}

impl Gate {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for (key, part) in [("success", self.success), ("worse_than_vm", self.worse_than_vm)] {
            // NaN is in no range.
            if !(0.0..=1.0).contains(&part) {
                problems.push(format!("gate.{key}: {part} is no part: 0 to 1, such as 0.999"));
            }
        }
        if !(1.0..=1000.0).contains(&self.p99_ratio) {
            problems.push(format!("gate.p99_ratio: {} is not between 1 and 1000", self.p99_ratio));
        }
        if self.window < Duration::from_secs(1) {
            problems.push("gate.window: at least 1s".to_owned());
        }
        problems
    }
}

/// The series in which calls are counted.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Metrics {
    /// `istio_requests_total`, as Istio's own Envoy has it.
    Istio,
    /// `envoy_cluster_*`, as any Envoy has it whose proxyStatsMatcher includes `cluster.outbound`.
    Envoy,
}

/// The answer to a gate that failed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnFailure {
    /// All calls go to the VM again.
    Return,
    /// The weights stay as they are, for a migration that can't go back because data has changed its form.
    Stay,
}

fn optional_duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    names::duration(deserializer).map(Some)
}
