//! `[health.probe]`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::duration;
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
