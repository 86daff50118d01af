//! `[health.probe]`.

mod problems;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checks, duration, ports};
use crate::facts::{Probe, ProbeKind, Scheme};
use problems::Problem;
pub(crate) use problems::problems;

/// A probe, in Istio's terms: exactly one of `grpc`, `http`, `tcp`, `exec`, and its timing; `failure_threshold` is
/// `FAILURES` unless it is given.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, try_from = "ProbeFile", into = "ProbeFile")]
pub struct ProbeConfig<const FAILURES: u32 = 1>(pub Probe);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct ProbeFile {
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc: Option<Grpc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<Http>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Tcp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exec: Option<Exec>,
    #[serde(default, with = "duration")]
    initial_delay: Duration,
    #[serde(default = "one_second", with = "duration")]
    timeout: Duration,
    #[serde(default = "ten_seconds", with = "duration")]
    period: Duration,
    #[serde(default = "one")]
    success_threshold: u32,
    failure_threshold: Option<u32>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Http {
    host: Option<String>,
    port: u16,
    #[serde(default = "root_path")]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default, serialize_with = "super::hidden::without_values")]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Tcp {
    host: Option<String>,
    port: u16,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Exec {
    #[serde(serialize_with = "super::hidden::without_arguments")]
    command: Vec<String>,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn one() -> u32 {
    1
}

fn root_path() -> String {
    "/".to_owned()
}

impl<const FAILURES: u32> TryFrom<ProbeFile> for ProbeConfig<FAILURES> {
    type Error = String;

    fn try_from(file: ProbeFile) -> Result<Self, String> {
        let kind = match (file.grpc, file.http, file.tcp, file.exec) {
            (Some(Grpc { port, service }), None, None, None) => ProbeKind::Grpc { port, service },
            (
                None,
                Some(Http {
                    host,
                    port,
                    path,
                    scheme,
                    headers,
                }),
                None,
                None,
            ) => ProbeKind::Http {
                host,
                port,
                path,
                scheme,
                headers: headers.into_iter().collect(),
            },
            (None, None, Some(Tcp { host, port }), None) => ProbeKind::Tcp { host, port },
            (None, None, None, Some(Exec { command })) if !command.is_empty() => ProbeKind::Exec { command },
            _ => return Err("a probe has exactly one of grpc, http, tcp, exec (with a command)".to_owned()),
        };
        Ok(Self(Probe {
            kind,
            initial_delay: file.initial_delay,
            timeout: file.timeout,
            period: file.period,
            success_threshold: file.success_threshold,
            failure_threshold: file.failure_threshold.unwrap_or(FAILURES),
        }))
    }
}

impl<const FAILURES: u32> From<ProbeConfig<FAILURES>> for ProbeFile {
    fn from(ProbeConfig(probe): ProbeConfig<FAILURES>) -> Self {
        let mut file = Self {
            grpc: None,
            http: None,
            tcp: None,
            exec: None,
            initial_delay: probe.initial_delay,
            timeout: probe.timeout,
            period: probe.period,
            success_threshold: probe.success_threshold,
            failure_threshold: Some(probe.failure_threshold),
        };
        match probe.kind {
            ProbeKind::Grpc { port, service } => file.grpc = Some(Grpc { port, service }),
            ProbeKind::Tcp { host, port } => file.tcp = Some(Tcp { host, port }),
            ProbeKind::Exec { command } => file.exec = Some(Exec { command }),
            ProbeKind::Http {
                host,
                port,
                path,
                scheme,
                headers,
            } => {
                file.http = Some(Http {
                    host,
                    port,
                    path,
                    scheme,
                    headers: headers.into_iter().collect(),
                });
            }
        }
        file
    }
}

impl<const FAILURES: u32> ProbeConfig<FAILURES> {
    /// The checks of the probe at `table`, such as `health.probe`.
    pub(super) fn checks(&self, table: &str) -> Checks {
        let Self(probe) = self;
        let least = |key: &str, count: u32| match count {
            0 => Err(format!("{table}.{key} = 0: must be at least 1")),
            _ => Ok(()),
        };
        let mut checks = vec![
            least("success_threshold", probe.success_threshold),
            least("failure_threshold", probe.failure_threshold),
            check_port(&probe.kind, table),
            check_path(&probe.kind, table),
        ];
        let found = problems(probe).into_iter();
        checks.extend(found.map(|Problem { key, words, .. }| Err(format!("{table}.{key} = {words}"))));
        checks
    }
}

fn check_port(kind: &ProbeKind, table: &str) -> Result<(), String> {
    let (name, port) = match kind {
        ProbeKind::Grpc { port, .. } => ("grpc", *port),
        ProbeKind::Tcp { port, .. } => ("tcp", *port),
        ProbeKind::Http { port, .. } => ("http", *port),
        ProbeKind::Exec { .. } => return Ok(()),
    };
    ports::check_free(port)
        .map_err(|problem| format!("{table}.{name}.port = {port}: a probe asks the application: {problem}"))
}

/// The operator's begins with a slash and has no blank in it; of a WorkloadGroup's Istio makes both.
fn check_path(kind: &ProbeKind, table: &str) -> Result<(), String> {
    match kind {
        ProbeKind::Http { path, .. } if !path.starts_with('/') || path.contains(char::is_whitespace) => Err(format!(
            "{table}.http.path = {path:?}: must begin with '/' and have no blanks, such as \"/healthz\""
        )),
        _ => Ok(()),
    }
}
