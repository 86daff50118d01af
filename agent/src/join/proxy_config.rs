//! The effective ProxyConfig: Istio's code defaults under mesh.yaml's `defaultConfig`, checked.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::field_error::FieldError;
use super::re2;
use crate::config::{LONGEST, ports};
use crate::facts::{ProxyConfig, duration, number};

/// The ports of Envoy that calls are sent to, out and in.
const OUTBOUND: &str = "proxyListenPort";
const INBOUND: &str = "proxyInboundListenPort";

/// Fields that protojson lets be a number or a string of digits, and the largest value of each.
const NUMBERS: [(&str, u64); 6] = [
    (OUTBOUND, 65_535),
    (INBOUND, 65_535),
    ("proxyAdminPort", 65_535),
    ("statusPort", 65_535),
    ("statNameLength", i32::MAX as u64),
    ("concurrency", i32::MAX as u64),
];

/// Durations that Envoy is given, and the shortest of each, in seconds.
const DURATIONS: [(&str, u64); 3] = [
    ("drainDuration", 1),
    ("terminationDrainDuration", 0),
    ("fileFlushInterval", 0),
];

/// istio/pkg/config/mesh/mesh.go, DefaultProxyConfig.
fn defaults() -> Map<String, Value> {
    let fields = [
        ("configPath", json!("./etc/istio/proxy")),
        ("binaryPath", json!("/usr/local/bin/envoy")),
        ("serviceCluster", json!("istio-proxy")),
        ("drainDuration", json!("45s")),
        ("terminationDrainDuration", json!("5s")),
        ("proxyAdminPort", json!(15000)),
        ("controlPlaneAuthPolicy", json!("MUTUAL_TLS")),
        ("discoveryAddress", json!("istiod.istio-system.svc:15012")),
        ("statNameLength", json!(189)),
        ("statusPort", json!(15020)),
    ];
    fields
        .map(|(field, value)| (field.to_owned(), value))
        .into_iter()
        .collect()
}

/// Lays `config` over the defaults, field by field, and `service_cluster` over both, as Istio's start script does
/// with ISTIO_SERVICE.
pub(super) fn effective(config: &ProxyConfig, service_cluster: Option<&str>) -> Result<ProxyConfig, FieldError> {
    let mut fields = defaults();
    fields.extend(config.0.clone());
    if let Some(name) = service_cluster.filter(|name| !name.is_empty()) {
        fields.insert("serviceCluster".to_owned(), json!(name));
    }
    check(&mut fields)?;
    Ok(ProxyConfig(fields))
}

/// Values that Istio's agent refuses to start with (pkg/config/validation/agent), and those that would show a
/// token in plain text.
fn check(fields: &mut Map<String, Value>) -> Result<(), FieldError> {
    for field in ["configPath", "binaryPath", "serviceCluster", "discoveryAddress"] {
        if fields.get(field).and_then(Value::as_str).is_none_or(str::is_empty) {
            return Err(FieldError::new(field, "must be text that is not empty"));
        }
    }
    for (field, max) in NUMBERS {
        if let Some(value) = fields.get_mut(field) {
            *value = json!(
                whole(value, max)
                    .ok_or_else(|| FieldError::new(field, format!("{value} is not a number from 0 to {max}")))?
            );
        }
    }
    for (field, min) in DURATIONS {
        let Some(value) = fields.get(field) else { continue };
        let range = Duration::from_secs(min)..=LONGEST;
        let duration = value.as_str().and_then(duration::parse);
        if !duration.is_some_and(|duration| range.contains(&duration)) {
            let problem = format!(
                "{value} is not a duration from {min} to {} seconds, such as \"45s\"",
                LONGEST.as_secs()
            );
            return Err(FieldError::new(field, problem));
        }
    }
    check_listeners(fields)?;
    check_stats(fields)?;
    let policy = fields.get("controlPlaneAuthPolicy").unwrap_or(&Value::Null);
    if !matches!(policy, Value::String(name) if name == "MUTUAL_TLS") && *policy != 1 {
        return Err(FieldError::new(
            "controlPlaneAuthPolicy",
            format!("{policy} is refused: the token would go in plain text; only MUTUAL_TLS is spoken"),
        ));
    }
    fields.insert("controlPlaneAuthPolicy".to_owned(), json!("MUTUAL_TLS"));
    Ok(())
}

/// Refuses ports of Envoy's that something else has.
fn check_listeners(fields: &Map<String, Value>) -> Result<(), FieldError> {
    let port = |field: &str, istios: u16| match fields.get(field).and_then(Value::as_u64) {
        Some(port) => u16::try_from(port).unwrap_or_default(),
        None => istios,
    };
    let own = [(OUTBOUND, ports::OUTBOUND), (INBOUND, ports::INBOUND)]
        .map(|(field, istios)| (field, port(field, istios), istios));
    for (field, port, istios) in own {
        if port != istios {
            ports::check_free(port).map_err(|problem| FieldError::new(field, problem))?;
        }
    }
    check_status(fields, &own)?;
    let [(_, outbound, _), (field, inbound, _)] = own;
    match outbound == inbound {
        true => Err(FieldError::new(
            field,
            format!("port {inbound} is {OUTBOUND} too: calls out and calls in need two: take another one"),
        )),
        false => Ok(()),
    }
}

/// Refuses a port that calls to this VM would be let past Envoy for, and that another part has.
fn check_status(fields: &Map<String, Value>, others: &[(&str, u16, u16)]) -> Result<(), FieldError> {
    const FIELD: &str = "statusPort";
    let port = fields.get(FIELD).and_then(Value::as_u64);
    let port = port.and_then(|port| u16::try_from(port).ok()).unwrap_or(ports::STATUS);
    // 0 is Istio's way to have none.
    if !matches!(port, 0 | ports::STATUS) {
        ports::check_free(port).map_err(|problem| FieldError::new(FIELD, problem))?;
    }
    match others.iter().find(|(_, other, _)| *other == port) {
        Some((other, ..)) => Err(FieldError::new(
            FIELD,
            format!("port {port} is {other} too: take another one"),
        )),
        None => Ok(()),
    }
}

/// Refuses what Envoy's bootstrap would take nothing from (istio.io/api, ProxyStatsMatcher).
fn check_stats(fields: &Map<String, Value>) -> Result<(), FieldError> {
    const FIELD: &str = "proxyStatsMatcher";
    const LISTS: [&str; 3] = ["inclusionPrefixes", "inclusionRegexps", "inclusionSuffixes"];
    let is_texts = |value: &Value| {
        let items = value.as_array();
        items.is_some_and(|items| {
            items
                .iter()
                .all(|item| item.as_str().is_some_and(|text| !text.is_empty()))
        })
    };
    let Some(matcher) = fields.get(FIELD) else {
        return Ok(());
    };
    let lists = matcher.as_object();
    let lists = lists.ok_or_else(|| FieldError::new(FIELD, format!("must be a map of {}", LISTS.join(", "))))?;
    for (list, texts) in lists {
        if !LISTS.contains(&list.as_str()) {
            let problem = format!("{list:?} is no list that there is: write one of {}", LISTS.join(", "));
            return Err(FieldError::new(FIELD, problem));
        }
        if !is_texts(texts) {
            return Err(FieldError::new(
                FIELD,
                format!("{list} must be a list of texts that aren't empty"),
            ));
        }
        let expressions = texts.as_array().filter(|_| list == "inclusionRegexps");
        let mut expressions = expressions.into_iter().flatten().filter_map(Value::as_str);
        let broken = expressions.find_map(|text| Some((text, re2::problem(text)?)));
        if let Some((text, problem)) = broken {
            let problem = format!("{list}: {text:?} is no regular expression to Envoy: {problem}");
            return Err(FieldError::new(FIELD, problem));
        }
    }
    Ok(())
}

fn whole(value: &Value, max: u64) -> Option<u64> {
    value
        .as_u64()
        .or_else(|| number::whole(value.as_str()?))
        .filter(|number| *number <= max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::mesh_yaml;

    fn read(yaml: &str) -> Result<ProxyConfig, String> {
        let mesh = mesh_yaml::parse(&format!("defaultConfig:\n  {yaml}\n"));
        let mesh = mesh.map_err(|error| error.problem.replace("defaultConfig.", ""))?;
        Ok(mesh.proxy_config)
    }

    fn written(yaml: &str) -> ProxyConfig {
        read(yaml).unwrap()
    }

    fn config(yaml: &str) -> Result<ProxyConfig, String> {
        effective(&read(yaml)?, None).map_err(|error| error.to_string())
    }

    #[test]
    fn fields_of_the_file_beat_the_defaults_and_unknown_ones_stay() {
        let config = config("{drainDuration: 60s, statusPort: '15999', concurrency: 2, zipkin: {a: [1]}}").unwrap();
        assert_eq!(config.str("drainDuration"), Some("60s"));
        assert_eq!(config.str("terminationDrainDuration"), Some("5s"));
        assert_eq!(config.port("statusPort"), Some(15999));
        assert_eq!(config.0["concurrency"], 2);
        assert_eq!(config.0["zipkin"], json!({"a": [1]}));
    }

    #[test]
    fn service_of_cluster_env_names_the_cluster() {
        let mesh = written("serviceCluster: a");
        assert_eq!(
            effective(&mesh, Some("b.ns")).unwrap().str("serviceCluster"),
            Some("b.ns")
        );
        assert_eq!(effective(&mesh, Some("")).unwrap().str("serviceCluster"), Some("a"));
    }

    #[test]
    fn values_that_make_no_sense_are_errors_with_their_field() {
        let cases = [
            ("drainDuration: 45", "drainDuration: 45 is not a duration"),
            (
                "drainDuration: 0.5s",
                "drainDuration: \"0.500s\" is not a duration from 1 to 31536000 seconds",
            ),
            ("terminationDrainDuration: -1s", "terminationDrainDuration: \"-1s\""),
            ("drainDuration: infs", "drainDuration"),
            (
                "drainDuration: 31536001s",
                "drainDuration: \"31536001s\" is not a duration from 1",
            ),
            (
                "terminationDrainDuration: 18446744073709549568s",
                "terminationDrainDuration",
            ),
            ("fileFlushInterval: 99999999999s", "fileFlushInterval"),
            ("statusPort: 70000", "statusPort: 70000 is not a number from 0 to 65535"),
            ("proxyAdminPort: -1", "proxyAdminPort: -1"),
            ("concurrency: two", "concurrency: \"two\""),
            ("serviceCluster: ''", "serviceCluster: must be text"),
            ("discoveryAddress: 7", "discoveryAddress: must be text"),
            (
                "proxyStatsMatcher: [a]",
                "proxyStatsMatcher: must be a map of inclusionPrefixes",
            ),
            (
                "proxyStatsMatcher: {inclusionPrefix: [a]}",
                "proxyStatsMatcher: \"inclusionPrefix\" is no list",
            ),
            (
                "proxyStatsMatcher: {inclusionRegexps: a}",
                "proxyStatsMatcher: inclusionRegexps must be a list",
            ),
            (
                "controlPlaneAuthPolicy: NONE",
                "controlPlaneAuthPolicy: \"NONE\" is refused",
            ),
            (
                "controlPlaneAuthPolicy: 0",
                "controlPlaneAuthPolicy: \"NONE\" is refused",
            ),
        ];
        for (yaml, wanted) in cases {
            let error = config(yaml).unwrap_err();
            assert!(error.starts_with(wanted), "{yaml}: {error}");
        }
    }
}
