//! ProxyConfig's `readinessProbe`: the WorkloadGroup's probe as protojson.

use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error, Unexpected};
use serde_json::{Map, Value};

use super::known::{BELOW_PROBE, PROBE};
use crate::config::{nearest_of_few, nearest_slip, ports, problems_of_probe};
use crate::facts::{Probe, ProbeKind, Scheme, number};

/// A probe, for whoever wrote none.
const SUCH_AS: &str = ", such as {tcpSocket: {port: 3550}}";

/// networking/v1alpha3/workload_group.proto, ReadinessProbe.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReadinessProbe {
    http_get: Option<HttpGet>,
    tcp_socket: Option<TcpSocket>,
    exec: Option<Exec>,
    grpc: Option<Grpc>,
    initial_delay_seconds: Number,
    timeout_seconds: Number,
    period_seconds: Number,
    success_threshold: Number,
    failure_threshold: Number,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HttpGet {
    port: Number,
    #[serde(default)]
    path: String,
    #[serde(default)]
    host: String,
    #[serde(default)]
    scheme: String,
    #[serde(default)]
    http_headers: Vec<Header>,
}

#[derive(Deserialize)]
struct Header {
    name: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
struct TcpSocket {
    port: Number,
    #[serde(default)]
    host: String,
}

#[derive(Deserialize)]
struct Exec {
    command: Vec<String>,
}

#[derive(Deserialize)]
struct Grpc {
    port: Number,
    #[serde(default)]
    service: String,
}

/// protojson writes numbers as such and reads them as strings too.
#[derive(Clone, Copy, Default)]
struct Number(u32);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        let number = value.as_u64().or_else(|| number::whole(value.as_str()?));
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => Ok(Self(number)),
            None => Err(D::Error::invalid_value(
                Unexpected::Other(&value.to_string()),
                &"a number",
            )),
        }
    }
}

impl Number {
    /// A field that is 0 or absent has its default.
    fn or(self, default: u32) -> u32 {
        if self.0 == 0 { default } else { self.0 }
    }

    fn port(self) -> Result<u16, String> {
        match u16::try_from(self.0) {
            Ok(port) => ports::check_free(port).map(|()| port),
            Err(_) => Err(format!("port {} is none: a port is from 1 to 65535", self.0)),
        }
    }
}

/// Reads the probe. `localhost`: probes without a host go there instead of to the VM's first address, which
/// REWRITE_PROBE_LEGACY_LOCALHOST_DESTINATION asks for when that address is not the VM's own.
pub(super) fn parse(value: &Value, localhost: bool) -> Result<Probe, String> {
    if let Some(slip) = unknown(value).into_iter().find_map(|field| field.slip()) {
        return Err(slip);
    }
    let probe = ReadinessProbe::deserialize(value).map_err(|_| unreadable(value))?;
    let host = |host: String| match (host.is_empty(), localhost) {
        (false, _) => Some(host),
        (true, true) => Some("localhost".to_owned()),
        (true, false) => None,
    };
    let kind = match (probe.http_get, probe.tcp_socket, probe.exec, probe.grpc) {
        (Some(http), None, None, None) => ProbeKind::Http {
            host: host(http.host),
            port: http.port.port()?,
            path: if http.path.is_empty() {
                "/".to_owned()
            } else {
                http.path
            },
            scheme: scheme(&http.scheme)?,
            headers: http
                .http_headers
                .into_iter()
                .map(|header| (header.name, header.value))
                .collect(),
        },
        (None, Some(tcp), None, None) => ProbeKind::Tcp {
            host: host(tcp.host),
            port: tcp.port.port()?,
        },
        (None, None, Some(Exec { command }), None) if !command.is_empty() => ProbeKind::Exec { command },
        (None, None, None, Some(grpc)) => ProbeKind::Grpc {
            port: grpc.port.port()?,
            service: grpc.service,
        },
        _ => {
            return Err(format!(
                "must have exactly one of httpGet, tcpSocket, exec (with a command), grpc{SUCH_AS}"
            ));
        }
    };
    let seconds = |number: u32| Duration::from_secs(number.into());
    let probe = Probe {
        kind,
        initial_delay: seconds(probe.initial_delay_seconds.0),
        timeout: seconds(probe.timeout_seconds.or(1)),
        period: seconds(probe.period_seconds.or(10)),
        success_threshold: probe.success_threshold.or(1),
        failure_threshold: probe.failure_threshold.or(1),
    };
    match problems_of_probe(&probe).first() {
        Some(problem) => Err(format!("{} = {}", problem.field, problem.words)),
        None => Ok(probe),
    }
}

/// The problem of a value that is no probe: of the first field in it that isn't one.
fn unreadable(value: &Value) -> String {
    let Some(fields) = value.as_object() else {
        return format!("is no probe{SUCH_AS}");
    };
    let is_wrong = |(name, value): &(&String, &Value)| {
        let alone = Value::from(Map::from_iter([((*name).clone(), (*value).clone())]));
        ReadinessProbe::deserialize(&alone).is_err()
    };
    match fields.iter().find(is_wrong) {
        Some((name, value)) if name.ends_with("Seconds") || name.ends_with("Threshold") => {
            format!("{name}: {value} is no whole number from 0, such as 10")
        }
        Some((name, _)) => {
            format!("{name}: must have what it asks for, and a port from 1 to 65535 but for exec{SUCH_AS}")
        }
        None => format!("is no probe{SUCH_AS}"),
    }
}

/// A field that this agent drops: a slip, or a newer Istio's.
struct Unknown {
    /// The names above it, with dots between.
    above: &'static str,
    name: String,
}

/// Every field of a probe that is none of those that are known.
fn unknown(value: &Value) -> Vec<Unknown> {
    let below = BELOW_PROBE.iter().flat_map(|(above, known)| {
        let of = above.split('.').try_fold(value, |value, name| value.get(name));
        let objects = match of {
            Some(Value::Array(items)) => items.iter().collect(),
            of => Vec::from_iter(of),
        };
        objects
            .into_iter()
            .flat_map(move |object| unknown_in(object, above, known))
    });
    unknown_in(value, "", &PROBE).chain(below).collect()
}

fn unknown_in(object: &Value, above: &'static str, known: &'static [&str]) -> impl Iterator<Item = Unknown> {
    let names = object.as_object().into_iter().flat_map(Map::keys);
    let unknown = names.filter(|name| !known.contains(&name.as_str()));
    unknown.map(move |name| Unknown {
        above,
        name: name.clone(),
    })
}

impl Unknown {
    fn path(&self) -> String {
        match self.above {
            "" => self.name.clone(),
            above => format!("{above}.{}", self.name),
        }
    }

    /// The problem of one that is nearly a known one's.
    fn slip(&self) -> Option<String> {
        let known = match BELOW_PROBE.iter().find(|(above, _)| *above == self.above) {
            Some((_, known)) => nearest_of_few(&self.name, known.iter().copied()),
            None => nearest_slip(&self.name, PROBE),
        };
        Some(format!("{} is unknown: did you mean {:?}?", self.path(), known?))
    }
}

/// The fields of a probe that are dropped.
pub(super) fn dropped(value: &Value) -> impl Iterator<Item = String> {
    unknown(value).into_iter().map(|field| field.path())
}

fn scheme(name: &str) -> Result<Scheme, String> {
    match name.to_ascii_lowercase().as_str() {
        "" | "http" => Ok(Scheme::Http),
        "https" => Ok(Scheme::Https),
        _ => Err(format!("httpGet.scheme: {name:?} is neither HTTP nor HTTPS")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn probes_of_each_kind_are_read() {
        let http = parse(
            &json!({"httpGet": {"path": "/ok", "port": 80, "scheme": "HTTPS", "httpHeaders": [{"name": "a", "value": "b"}]},
                "initialDelaySeconds": 3, "timeoutSeconds": 2, "periodSeconds": 5, "successThreshold": 4, "failureThreshold": 6}),
            false,
        )
        .unwrap();
        let kind = ProbeKind::Http {
            host: None,
            port: 80,
            path: "/ok".to_owned(),
            scheme: Scheme::Https,
            headers: vec![("a".to_owned(), "b".to_owned())],
        };
        let wanted = Probe {
            kind,
            initial_delay: Duration::from_secs(3),
            timeout: Duration::from_secs(2),
            period: Duration::from_secs(5),
            success_threshold: 4,
            failure_threshold: 6,
        };
        assert_eq!(http, wanted);

        let grpc = parse(&json!({"grpc": {"port": "3550"}, "timeoutSeconds": 0, "new": 1}), false).unwrap();
        let kind = ProbeKind::Grpc {
            port: 3550,
            service: String::new(),
        };
        assert_eq!((grpc.kind, grpc.timeout), (kind, Duration::from_secs(1)));
        assert_eq!((grpc.period, grpc.success_threshold), (Duration::from_secs(10), 1));

        let tcp = |localhost| parse(&json!({"tcpSocket": {"port": 1}}), localhost).unwrap().kind;
        assert_eq!(tcp(false), ProbeKind::Tcp { host: None, port: 1 });
        let host = Some("localhost".to_owned());
        assert_eq!(tcp(true), ProbeKind::Tcp { host, port: 1 });

        let command = vec!["true".to_owned()];
        let exec = parse(&json!({"exec": {"command": ["true"]}}), false).unwrap();
        assert_eq!(exec.kind, ProbeKind::Exec { command });
    }

    #[test]
    fn value_that_is_no_probe_is_an_error() {
        let cases = [
            (json!({}), "exactly one of"),
            (json!(7), "is no probe, such as"),
            (json!({"tcpsocket": {"port": 1}}), "did you mean \"tcpSocket\"?"),
            (
                json!({"tcpSocket": {"port": 1}, "periodSecond": 1}),
                "did you mean \"periodSeconds\"?",
            ),
            (
                json!({"httpGet": {"port": 1, "hosst": "a"}}),
                "httpGet.hosst is unknown: did you mean \"host\"?",
            ),
            (
                json!({"httpGet": {"port": 1, "pat": "/a"}}),
                "httpGet.pat is unknown: did you mean \"path\"?",
            ),
            (
                json!({"grpc": {"prot": 1}}),
                "grpc.prot is unknown: did you mean \"port\"?",
            ),
            (
                json!({"httpGet": {"port": 1, "httpHeaders": [{"name": "a"}, {"name": "b", "vale": "c"}]}}),
                "httpGet.httpHeaders.vale is unknown: did you mean \"value\"?",
            ),
            (json!({"exec": {"command": []}}), "exactly one of"),
            (json!({"grpc": {"port": 1}, "tcpSocket": {"port": 1}}), "exactly one of"),
            (json!({"grpc": {"port": 0}}), "port 0"),
            (json!({"grpc": {"port": 70000}}), "port 70000"),
            (json!({"grpc": {}}), "port"),
            (json!({"grpc": {"port": "x"}}), "grpc: must have"),
            (json!({"grpc": {"port": 15020}}), "the mesh's own"),
            (
                json!({"httpGet": {"port": 1, "scheme": "ftp"}}),
                "neither HTTP nor HTTPS",
            ),
            (
                json!({"tcpSocket": {"port": 1}, "periodSeconds": -1}),
                "periodSeconds: -1 is no whole number",
            ),
        ];
        for (value, wanted) in cases {
            let error = parse(&value, false).unwrap_err();
            assert!(error.contains(wanted), "{value}: {error}");
        }
    }
}
