//! Secrets that are hidden from whoever is shown a configuration or a membership.

use std::collections::BTreeMap;

use serde::Serializer;
use serde_json::{Map, Value};

/// The words in place of a value that may be a secret.
pub(crate) const NOT_SHOWN: &str = "(not shown)";
/// Strings of a probe that are no secret; others are values of headers, words of a command, and a newer Istio's.
const OPEN_OF_PROBE: [&str; 5] = ["host", "path", "scheme", "service", "name"];

/// Serializes the names of variables or headers alone: a value may be a secret.
pub(super) fn without_values<S: Serializer>(all: &BTreeMap<String, String>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(all.keys().map(|name| (name, NOT_SHOWN)))
}

/// Serializes a command without its arguments, any of which may be a secret.
pub(super) fn without_arguments<S: Serializer>(command: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    let arguments = command.iter().skip(1).map(|_| NOT_SHOWN);
    serializer.collect_seq(command.first().map(String::as_str).into_iter().chain(arguments))
}

/// Serializes arguments as their number alone.
pub(super) fn as_many<S: Serializer>(arguments: &Option<Vec<String>>, serializer: S) -> Result<S::Ok, S::Error> {
    match arguments {
        Some(arguments) => serializer.collect_seq(arguments.iter().map(|_| NOT_SHOWN)),
        None => serializer.serialize_none(),
    }
}

/// Hides what may be a secret in a ProxyConfig: of its readiness probe, the values of headers and the words of a command;
/// of its metadata, all that Istio has no name for; tokens of tracers.
pub(crate) fn hide_secrets(proxy_config: &mut Map<String, Value>) {
    for (field, value) in proxy_config {
        match field.as_str() {
            "readinessProbe" => hide(value, "", &|name| OPEN_OF_PROBE.contains(&name)),
            "proxyMetadata" => hide(value, "", &|name| name.starts_with("ISTIO_")),
            _ => hide(value, "", &|name| !name.to_ascii_lowercase().contains("token")),
        }
    }
}

/// Hides each string that stands under a name which is not open.
fn hide(value: &mut Value, name: &str, is_open: &dyn Fn(&str) -> bool) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| hide(value, name, is_open)),
        Value::Array(items) => items.iter_mut().for_each(|item| hide(item, name, is_open)),
        Value::String(text) if !is_open(name) => NOT_SHOWN.clone_into(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn proxy_config_is_shown_without_what_may_be_a_secret() {
        let mut shown = json!({
            "discoveryAddress": "istiod:15012",
            "readinessProbe": {
                "httpGet": {
                    "path": "/ok", "port": 80, "httpHeaders": [{"name": "Authorization", "value": "hunter2"}],
                    "http_headers": [{"name": "Authorization", "value": "hunter2"}]
                },
                "exec": {"command": ["check", "hunter2"]}
            },
            "proxyMetadata": {"ISTIO_META_NETWORK": "n", "DD_API_KEY": "hunter2"},
            "tracing": {"lightstep": {"address": "a:1", "accessToken": "hunter2"}}
        });
        hide_secrets(shown.as_object_mut().unwrap());
        let hidden = json!({"name": "Authorization", "value": NOT_SHOWN});
        let wanted = json!({
            "discoveryAddress": "istiod:15012",
            "readinessProbe": {
                "httpGet": {"path": "/ok", "port": 80, "httpHeaders": [hidden], "http_headers": [hidden]},
                "exec": {"command": [NOT_SHOWN, NOT_SHOWN]}
            },
            "proxyMetadata": {"ISTIO_META_NETWORK": "n", "DD_API_KEY": NOT_SHOWN},
            "tracing": {"lightstep": {"address": "a:1", "accessToken": NOT_SHOWN}}
        });
        assert_eq!(shown, wanted);
    }
}
