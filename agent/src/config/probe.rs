//! `[health.probe]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{duration, ports};
use crate::facts::{Probe, ProbeKind, Scheme};

/// The probe, in Istio's terms: exactly one of `grpc`, `http`, `tcp`, `exec`, and its timing.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, try_from = "ProbeFile")]
pub struct ProbeConfig(pub Probe);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProbeFile {
    grpc: Option<Grpc>,
    http: Option<Http>,
    tcp: Option<Tcp>,
    exec: Option<Exec>,
    #[serde(default, deserialize_with = "duration::bounded")]
    initial_delay: Duration,
    #[serde(default = "one_second", deserialize_with = "duration::bounded")]
    timeout: Duration,
    #[serde(default = "ten_seconds", deserialize_with = "duration::bounded")]
    period: Duration,
    #[serde(default = "one")]
    success_threshold: u32,
    #[serde(default = "one")]
    failure_threshold: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grpc {
    port: u16,
    #[serde(default)]
    service: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Http {
    host: Option<String>,
    port: u16,
    #[serde(default = "root_path")]
    path: String,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    headers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tcp {
    host: Option<String>,
    port: u16,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Exec {
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
        check(&kind)?;
        if file.period.is_zero() || file.timeout.is_zero() {
            return Err("a probe's period and timeout must be longer than 0s".to_owned());
        }
        if file.success_threshold == 0 || file.failure_threshold == 0 {
            return Err("a probe's thresholds must be at least 1".to_owned());
        }
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

/// Checks what is asked, and where.
fn check(kind: &ProbeKind) -> Result<(), String> {
    match kind {
        ProbeKind::Grpc { port, .. } | ProbeKind::Tcp { port, .. } | ProbeKind::Http { port, .. } => {
            ports::check_free(*port).map_err(|problem| format!("a probe asks the application: {problem}"))?;
        }
        ProbeKind::Exec { .. } => {}
    }
    let ProbeKind::Http { path, headers, .. } = kind else {
        return Ok(());
    };
    if !path.starts_with('/') || path.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(format!(
            "a probe's path {path:?} must begin with '/' and have no blanks, such as \"/healthz\""
        ));
    }
    let is_header = |name: &str, value: &str| {
        http::HeaderName::try_from(name).is_ok() && http::HeaderValue::try_from(value).is_ok()
    };
    match headers.iter().find(|(name, value)| !is_header(name, value)) {
        Some((name, _)) => Err(format!(
            "a probe's header {name:?} is none that HTTP has, such as X-Probe = \"1\""
        )),
        None => Ok(()),
    }
}
