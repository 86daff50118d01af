//! `[health.probe]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Checks, duration, ports};
use crate::facts::{Probe, ProbeKind, Scheme};

/// The probe, in Istio's terms: exactly one of `grpc`, `http`, `tcp`, `exec`, and its timing.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields, try_from = "ProbeFile", into = "ProbeFile")]
pub struct ProbeConfig(pub Probe);

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
    #[serde(default = "one")]
    failure_threshold: u32,
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

impl TryFrom<ProbeFile> for ProbeConfig {
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
            failure_threshold: file.failure_threshold,
        }))
    }
}

impl From<ProbeConfig> for ProbeFile {
    fn from(ProbeConfig(probe): ProbeConfig) -> Self {
        let mut file = Self {
            grpc: None,
            http: None,
            tcp: None,
            exec: None,
            initial_delay: probe.initial_delay,
            timeout: probe.timeout,
            period: probe.period,
            success_threshold: probe.success_threshold,
            failure_threshold: probe.failure_threshold,
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

impl ProbeConfig {
    pub(super) fn checks(&self) -> Checks {
        let Self(probe) = self;
        let longer = |key: &str, time: Duration| match time.is_zero() {
            true => Err(format!("health.probe.{key}: must be longer than 0s, such as \"1s\"")),
            false => Ok(()),
        };
        let least = |key: &str, count: u32| match count {
            0 => Err(format!("health.probe.{key} = 0: must be at least 1")),
            _ => Ok(()),
        };
        let mut checks = vec![
            longer("period", probe.period),
            longer("timeout", probe.timeout),
            least("success_threshold", probe.success_threshold),
            least("failure_threshold", probe.failure_threshold),
        ];
        checks.extend(check_kind(&probe.kind));
        checks
    }
}

/// What is asked, and where.
fn check_kind(kind: &ProbeKind) -> Checks {
    let (name, port) = match kind {
        ProbeKind::Grpc { port, .. } => ("grpc", *port),
        ProbeKind::Tcp { port, .. } => ("tcp", *port),
        ProbeKind::Http { port, .. } => ("http", *port),
        ProbeKind::Exec { .. } => return Vec::new(),
    };
    let free = ports::check_free(port);
    let mut checks = vec![
        free.map_err(|problem| format!("health.probe.{name}.port = {port}: a probe asks the application: {problem}")),
    ];
    let ProbeKind::Http { path, headers, .. } = kind else {
        return checks;
    };
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        checks.push(Err(format!(
            "health.probe.http.path = {path:?}: must begin with '/' and have no blanks, such as \"/healthz\""
        )));
    }
    let is_header = |name: &str, value: &str| {
        http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok()
    };
    if let Some((name, _)) = headers.iter().find(|(name, value)| !is_header(name, value)) {
        checks.push(Err(format!(
            "health.probe.http.headers: {name:?} is no header that HTTP has, such as X-Probe = \"1\""
        )));
    }
    checks
}
