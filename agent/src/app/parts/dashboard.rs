//! The dashboard for Grafana, `packaging/monitoring/dashboard.json`, made here; and that it and the alerts name no metric
//! that the agent has not.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::parts;

/// One panel: its title, what is drawn with which legend, and Grafana's name of the unit.
struct Panel {
    title: &'static str,
    unit: &'static str,
    queries: &'static [(&'static str, &'static str)],
}

const fn panel(title: &'static str, unit: &'static str, queries: &'static [(&'static str, &'static str)]) -> Panel {
    Panel { title, unit, queries }
}

/// Panels that a migration looks at first, then those for when something is wrong. `$vm` is chosen above them.
const PANELS: [Panel; 17] = [
    panel(
        "Ready",
        "short",
        &[
            ("sum(istio_vm_agent_ready{instance=~\"$vm\"})", "ready"),
            ("count(istio_vm_agent_info{instance=~\"$vm\"})", "all"),
        ],
    ),
    panel(
        "Problems",
        "short",
        &[("sum by (code) (istio_vm_agent_problem{instance=~\"$vm\"})", "{{code}}")],
    ),
    panel(
        "Services that call the VM",
        "short",
        &[("istio_vm_agent_endpoint_clusters{instance=~\"$vm\"}", "{{instance}}")],
    ),
    panel(
        "Application healthy",
        "short",
        &[("istio_vm_agent_application_healthy{instance=~\"$vm\"}", "{{instance}}")],
    ),
    panel(
        "Requests to the VM",
        "reqps",
        &[(
            "sum by (instance) (rate(envoy_listener_downstream_cx_total{instance=~\"$vm\", listener_address=~\".*_15006\"}[5m]))",
            "{{instance}}, connections",
        )],
    ),
    panel(
        "Certificate ends in",
        "s",
        &[("istio_agent_cert_expiry_seconds{instance=~\"$vm\"}", "{{instance}}")],
    ),
    panel(
        "istiod connected, snapshot in use",
        "short",
        &[
            (
                "istio_vm_agent_istiod_connected{instance=~\"$vm\"}",
                "{{instance}} istiod",
            ),
            (
                "istio_vm_agent_snapshot_in_use{instance=~\"$vm\"}",
                "{{instance}} snapshot",
            ),
        ],
    ),
    panel(
        "Control plane in use",
        "short",
        &[(
            "sum by (address) (istio_vm_agent_control_plane_current{instance=~\"$vm\"})",
            "{{address}}",
        )],
    ),
    panel(
        "Streams that ended, attempts that failed",
        "short",
        &[
            (
                "increase(istio_agent_istiod_disconnections{instance=~\"$vm\"}[5m])",
                "{{instance}} istiod's",
            ),
            (
                "increase(istio_agent_istiod_connection_failures{instance=~\"$vm\"}[5m])",
                "{{instance}} failed",
            ),
            (
                "increase(istio_agent_envoy_disconnections{instance=~\"$vm\"}[5m])",
                "{{instance}} Envoy's",
            ),
        ],
    ),
    panel(
        "Configuration refused by Envoy",
        "short",
        &[
            ("istio_vm_agent_refused_types{instance=~\"$vm\"}", "{{instance}} types"),
            (
                "increase(istio_vm_agent_nacks_total{instance=~\"$vm\"}[5m])",
                "{{instance}} responses",
            ),
        ],
    ),
    panel(
        "Envoy: restarts, hand-overs, slowed",
        "short",
        &[
            (
                "increase(istio_vm_agent_envoy_restarts_total{instance=~\"$vm\"}[5m])",
                "{{instance}} restarts",
            ),
            (
                "increase(istio_vm_agent_envoy_takeovers_total{instance=~\"$vm\"}[5m])",
                "{{instance}} hand-overs",
            ),
            (
                "istio_vm_agent_envoy_restart_budget_spent{instance=~\"$vm\"}",
                "{{instance}} slowed",
            ),
        ],
    ),
    panel(
        "Container: runs, restarts",
        "short",
        &[
            (
                "istio_vm_agent_container_running{instance=~\"$vm\"}",
                "{{instance}} {{workload}} runs",
            ),
            (
                "increase(istio_vm_agent_container_restarts_total{instance=~\"$vm\"}[5m])",
                "{{instance}} {{workload}} restarts",
            ),
        ],
    ),
    panel(
        "Rules, repairs of them",
        "short",
        &[
            ("istio_vm_agent_rules{instance=~\"$vm\"}", "{{instance}} {{backend}}"),
            (
                "increase(istio_vm_agent_rule_repairs_total{instance=~\"$vm\"}[5m])",
                "{{instance}} repairs",
            ),
        ],
    ),
    panel(
        "Packets by rule",
        "pps",
        &[(
            "topk(10, sum by (chain, rule) (rate(istio_vm_agent_rule_packets_total{instance=~\"$vm\"}[5m])))",
            "{{chain}} {{rule}}",
        )],
    ),
    panel(
        "DNS queries",
        "reqps",
        &[
            (
                "sum by (instance) (rate(istio_agent_dns_requests_total{instance=~\"$vm\"}[5m]))",
                "{{instance}}",
            ),
            (
                "sum by (instance) (rate(istio_agent_dns_upstream_failures_total{instance=~\"$vm\"}[5m]))",
                "{{instance}} failed",
            ),
        ],
    ),
    panel(
        "DNS upstream, 99th percentile",
        "s",
        &[(
            "histogram_quantile(0.99, sum by (instance, le) (rate(istio_agent_dns_upstream_request_duration_seconds_bucket{instance=~\"$vm\"}[5m])))",
            "{{instance}}",
        )],
    ),
    panel(
        "Turned away",
        "short",
        &[(
            "sum by (instance, what) (increase(istio_vm_agent_refused_total{instance=~\"$vm\"}[5m]))",
            "{{instance}} {{what}}",
        )],
    ),
];

/// Panels in a row; Grafana's grid has 24 columns.
const IN_ROW: usize = 4;

fn dashboard() -> Value {
    let panels = PANELS.iter().enumerate().map(|(number, panel)| {
        let (column, row) = (number % IN_ROW, number / IN_ROW);
        json!({
            "id": number + 1,
            "type": "timeseries",
            "title": panel.title,
            "datasource": { "type": "prometheus", "uid": "${source}" },
            "gridPos": { "h": 8, "w": 24 / IN_ROW, "x": 24 / IN_ROW * column, "y": 8 * row },
            "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
            "options": { "legend": { "displayMode": "list", "placement": "bottom" }, "tooltip": { "mode": "multi" } },
            "targets": panel.queries.iter().zip('A'..='Z').map(|((expr, legend), id)| json!({
                "refId": id.to_string(), "expr": expr, "legendFormat": legend,
            })).collect::<Vec<_>>(),
        })
    });
    let variables = json!([
        { "name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus" },
        {
            "name": "vm", "label": "VM", "type": "query", "multi": true, "includeAll": true, "allValue": ".*",
            "datasource": { "type": "prometheus", "uid": "${source}" },
            "query": "label_values(istio_vm_agent_info, instance)", "refresh": 2, "sort": 1,
        },
    ]);
    json!({
        "uid": "istio-vm-agent",
        "title": "Istio VMs",
        "tags": ["istio"],
        "schemaVersion": 39,
        "editable": true,
        "refresh": "30s",
        "time": { "from": "now-1h", "to": "now" },
        "templating": { "list": variables },
        "panels": panels.collect::<Vec<_>>(),
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/monitoring")
}

fn text() -> String {
    serde_json::to_string_pretty(&dashboard()).unwrap() + "\n"
}

#[test]
fn dashboard_is_what_is_made_here() {
    let written = fs::read_to_string(folder().join("dashboard.json")).unwrap_or_default();
    let remedy = "run `cargo test -p istio-vm-agent --lib -- --ignored write_the_dashboard`";
    assert!(written == text(), "dashboard.json is out of date: {remedy}");
}

#[test]
#[ignore = "writes packaging/monitoring/dashboard.json"]
fn write_the_dashboard() {
    fs::write(folder().join("dashboard.json"), text()).unwrap();
}

#[test]
fn dashboard_and_alerts_name_metrics_that_the_agent_has() {
    let parts = parts(None);
    let known: Vec<&str> = parts
        .iter()
        .flat_map(|part| part.metrics())
        .map(|metric| metric.name)
        .collect();
    let is_known = |name: &str| {
        known
            .iter()
            .any(|known| name == *known || name.strip_suffix("_bucket") == Some(known))
    };
    let mut named = 0;
    for (place, text) in [
        ("dashboard.json", text()),
        ("alerts.yaml", fs::read_to_string(folder().join("alerts.yaml")).unwrap()),
        (
            "alerts.test.yaml",
            fs::read_to_string(folder().join("alerts.test.yaml")).unwrap(),
        ),
    ] {
        for name in text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
            if name.starts_with("istio_") {
                assert!(is_known(name), "{place}: the agent has no {name}");
                named += 1;
            }
        }
    }
    assert!(named > 60, "{named}");
}
