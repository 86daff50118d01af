//! The application's health probe, as the operator's TOML or the WorkloadGroup gives it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Istio's ReadinessProbe (networking/v1alpha3/workload_group.proto), with its defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Probe {
    /// The question.
    pub kind: ProbeKind,
    /// Wait before the first probe.
    pub initial_delay: Duration,
    /// Deadline of one probe.
    pub timeout: Duration,
    /// From one probe's start to the next one's.
    pub period: Duration,
    /// Consecutive good probes that make the workload healthy.
    pub success_threshold: u32,
    /// Consecutive bad probes that make it unhealthy.
    pub failure_threshold: u32,
}

impl Probe {
    /// Port that it asks; `None` for a command.
    pub fn port(&self) -> Option<u16> {
        match self.kind {
            ProbeKind::Exec { .. } => None,
            ProbeKind::Grpc { port, .. } | ProbeKind::Http { port, .. } | ProbeKind::Tcp { port, .. } => Some(port),
        }
    }
}

/// A probe's question to the application.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ProbeKind {
    /// Runs a command; status 0 is healthy.
    Exec {
        /// argv.
        command: Vec<String>,
    },
    /// grpc.health.v1.Health/Check in plain text; SERVING is healthy.
    Grpc {
        /// Port.
        port: u16,
        /// Service name, empty for the server as a whole.
        service: String,
    },
    /// GET; 200 to 399 is healthy.
    Http {
        /// Target; the VM's first mesh address when absent.
        host: Option<String>,
        /// Port.
        port: u16,
        /// Path with a leading slash.
        path: String,
        /// https checks no certificate, as Kubernetes does.
        scheme: Scheme,
        /// Extra headers.
        headers: Vec<(String, String)>,
    },
    /// A connection that opens is healthy.
    Tcp {
        /// Target; the VM's first mesh address when absent.
        host: Option<String>,
        /// Port.
        port: u16,
    },
}

/// Scheme of an HTTP probe.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain.
    #[default]
    Http,
    /// TLS, unverified.
    Https,
}
