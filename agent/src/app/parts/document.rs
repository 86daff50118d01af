//! The document of all metrics, `docs/metrics.md`, made of what the parts say of theirs; and what holds of all of them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::parts;
use crate::part::{Metric, MetricKind};

const HEAD: &str = "# Metrics\n\n\
    On port 15020, at `/metrics` and `/stats/prometheus`: the agent's own, which are these, then Envoy's and the\n\
    application's. `istio_agent_*` and `istio_build` are Istio's names with Istio's meaning. Made by a test of what the\n\
    agent has (`app/parts/document.rs`); the unit is the end of a name, and a name without one is a count or yes (1) and\n\
    no (0).\n\n\
    | metric | kind | labels | meaning |\n|---|---|---|---|\n";

fn metrics() -> Vec<&'static Metric> {
    let parts = parts(None);
    parts.iter().flat_map(|part| part.metrics()).collect()
}

fn document() -> (PathBuf, String) {
    let mut text = HEAD.to_owned();
    for metric in metrics() {
        let labels = metric.labels.iter().map(|label| format!("`{label}`"));
        let labels = labels.collect::<Vec<_>>().join(", ");
        let (name, kind, help) = (metric.name, metric.kind.name(), metric.help);
        writeln!(text, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    (path, text)
}

#[test]
fn document_has_every_metric() {
    let (path, text) = document();
    let written = fs::read_to_string(&path).unwrap_or_default();
    let remedy = "run `cargo test -p istio-vm-agent --lib -- --ignored write_the_metrics`";
    assert!(written == text, "{} is out of date: {remedy}\n{text}", path.display());
}

#[test]
#[ignore = "writes docs/metrics.md"]
fn write_the_metrics() {
    let (path, text) = document();
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Metrics are named as promtool wants, and no two parts have the same name.
#[test]
fn metrics_are_named_and_described_as_prometheus_wants() {
    let mut names = BTreeSet::new();
    for metric in metrics() {
        let (name, help) = (metric.name, metric.help);
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("istio_"), "{name}");
        assert_eq!(name.ends_with("_total"), metric.kind == MetricKind::Counter, "{name}");
        assert!(
            !help.contains(['\n', '"', '\\', '|']) && help.ends_with('.'),
            "{name}: {help}"
        );
    }
    assert!(names.len() > 40, "{}", names.len());
}
