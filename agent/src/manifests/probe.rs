//! A probe as a WorkloadGroup has it (networking/v1alpha3/workload_group.proto, ReadinessProbe).

use std::time::Duration;

use serde_json::{Value, json};

use crate::facts::{Probe, ProbeKind, Scheme};

/// The probe as the WorkloadGroup has it: only fields that differ from Istio's defaults.
pub(super) fn object(probe: &Probe) -> Value {
    let (kind, asked) = asked(&probe.kind);
    let mut object = json!({ kind: asked });
    let times = [
        ("initialDelaySeconds", seconds(probe.initial_delay), 0),
        ("timeoutSeconds", seconds(probe.timeout), 1),
        ("periodSeconds", seconds(probe.period), 10),
        ("successThreshold", probe.success_threshold.into(), 1),
        ("failureThreshold", probe.failure_threshold.into(), 1),
    ];
    for (key, value, default) in times {
        if value != default {
            object[key] = value.into();
        }
    }
    object
}

fn asked(kind: &ProbeKind) -> (&'static str, Value) {
    match kind {
        ProbeKind::Exec { command } => ("exec", json!({ "command": command })),
        // Istio's API and its agent have gRPC probes, but its admission webhook and `istioctl analyze` refuse them
        // (validateReadinessProbe, 1.31). The VM's own configuration may say it all the same.
        ProbeKind::Grpc { port, .. } => ("tcpSocket", json!({ "port": port })),
        ProbeKind::Http {
            host,
            port,
            path,
            scheme,
            headers,
        } => {
            let scheme = match scheme {
                Scheme::Http => "HTTP",
                Scheme::Https => "HTTPS",
            };
            let mut object = json!({ "path": path, "port": port, "scheme": scheme });
            if let Some(host) = host {
                object["host"] = host.as_str().into();
            }
            if !headers.is_empty() {
                let headers = headers
                    .iter()
                    .map(|(name, value)| json!({ "name": name, "value": value }));
                object["httpHeaders"] = headers.collect();
            }
            ("httpGet", object)
        }
        ProbeKind::Tcp { host: None, port } => ("tcpSocket", json!({ "port": port })),
        ProbeKind::Tcp { host, port } => ("tcpSocket", json!({ "host": host, "port": port })),
    }
}

/// Istio counts whole ones; a shorter time than was asked for would fail probes that are well.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
