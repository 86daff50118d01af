//! The mesh's configuration: MeshConfig and ProxyConfig as YAML, read as Istio reads them.
//!
//! Istio decodes them as protobuf JSON, where a value can be spelled in several ways, and encodes them again.
//! A bundle has the one canonical spelling.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::facts::{ProxyConfig, duration};
use crate::join::field_error::FieldError;
use crate::kube::yaml;

/// istio/pkg/config/mesh/mesh.go, DefaultMeshConfig.
const TRUST_DOMAIN: &str = "cluster.local";
const METADATA: &str = "proxyMetadata";

/// The spellings of a field of ProxyConfig in protobuf's JSON.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A string, or a list; empty is absent.
    Text,
    /// A number or a string of digits; 0 is absent.
    Number,
    /// A number or a string of digits; 0 is a value.
    Wrapped,
    /// Seconds; Istio takes Go's spelling too.
    Duration,
    /// A name, or its number; the first is absent.
    Name(&'static [&'static str]),
}

/// The fields with more than one spelling (istio.io/api, mesh/v1alpha1/proxy.proto).
const KINDS: [(&str, Kind); 20] = [
    ("binaryPath", Kind::Text),
    ("concurrency", Kind::Wrapped),
    ("configPath", Kind::Text),
    ("controlPlaneAuthPolicy", Kind::Name(&["NONE", "MUTUAL_TLS"])),
    ("customConfigFile", Kind::Text),
    ("caCertificatesPem", Kind::Text),
    ("discoveryAddress", Kind::Text),
    ("drainDuration", Kind::Duration),
    ("extraStatTags", Kind::Text),
    ("fileFlushInterval", Kind::Duration),
    ("fileFlushMinSizeKb", Kind::Wrapped),
    ("interceptionMode", Kind::Name(&["REDIRECT", "TPROXY", "NONE"])),
    ("meshId", Kind::Text),
    ("proxyAdminPort", Kind::Number),
    ("proxyBootstrapTemplatePath", Kind::Text),
    ("serviceCluster", Kind::Text),
    ("statNameLength", Kind::Number),
    ("statsdUdpAddress", Kind::Text),
    ("statusPort", Kind::Number),
    ("terminationDrainDuration", Kind::Duration),
];

/// Why a mesh's configuration, or a part of it, is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeshConfigError {
    #[error("is not valid YAML: {0}")]
    Yaml(#[from] serde_saphyr::Error),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// The part of MeshConfig that concerns a VM.
#[derive(Debug)]
pub(super) struct MeshConfig {
    pub(super) trust_domain: String,
    /// `defaultConfig`, its fields in their canonical spelling.
    pub(super) proxy: ProxyConfig,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct File {
    #[serde(alias = "default_config")]
    default_config: Option<Map<String, Value>>,
    #[serde(alias = "trust_domain")]
    trust_domain: Option<String>,
}

impl MeshConfig {
    /// Parses the text of the mesh's ConfigMap.
    pub(super) fn parse(text: &str) -> Result<Self, MeshConfigError> {
        let file: File = parse(text)?;
        let mut proxy = ProxyConfig::default();
        lay(&mut proxy, file.default_config.unwrap_or_default()).map_err(|error| error.below("defaultConfig"))?;
        let trust_domain = file.trust_domain.filter(|domain| !domain.is_empty());
        Ok(Self {
            trust_domain: trust_domain.unwrap_or_else(|| TRUST_DOMAIN.to_owned()),
            proxy,
        })
    }
}

/// Lays YAML over `proxy`, field by field; `proxyMetadata` key by key.
pub(super) fn overlay(proxy: &mut ProxyConfig, yaml: &str) -> Result<(), MeshConfigError> {
    Ok(lay(proxy, parse(yaml)?)?)
}

/// Sets a field, or removes it.
pub(super) fn set(proxy: &mut ProxyConfig, field: &str, value: Option<Value>) {
    match value.filter(|value| !value.is_null()) {
        Some(value) => proxy.0.insert(field.to_owned(), value),
        None => proxy.0.remove(field),
    };
}

/// Adds to `proxyMetadata`.
pub(super) fn extend_metadata(proxy: &mut ProxyConfig, more: BTreeMap<String, String>) {
    let mut metadata = proxy.metadata();
    metadata.extend(more);
    proxy.0.insert(METADATA.to_owned(), json!(metadata));
}

fn lay(proxy: &mut ProxyConfig, fields: Map<String, Value>) -> Result<(), FieldError> {
    for (field, value) in fields {
        let field = camel_case(&field);
        if value.is_null() {
            continue;
        }
        if field == METADATA {
            extend_metadata(proxy, metadata(&value)?);
            continue;
        }
        let value = canonical(&field, value)?;
        set(proxy, &field, value);
    }
    Ok(())
}

fn metadata(value: &Value) -> Result<BTreeMap<String, String>, FieldError> {
    let map = value.as_object();
    let map = map.ok_or_else(|| FieldError::new(METADATA, "must be a map"))?;
    let pair = |(key, value): (&String, &Value)| match value {
        Value::String(text) => Ok((key.clone(), text.clone())),
        Value::Null => Ok((key.clone(), String::new())),
        other => Err(FieldError::new(
            format!("{METADATA}.{key}"),
            format!("must be a string: put {other} in quotes"),
        )),
    };
    map.iter().map(pair).collect()
}

/// The one spelling of a value; `None` for one that means the same as no value.
fn canonical(field: &str, value: Value) -> Result<Option<Value>, FieldError> {
    let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == field) else {
        return Ok(Some(value));
    };
    let value = match kind {
        Kind::Text => value,
        Kind::Number | Kind::Wrapped => {
            let wrong = || FieldError::new(field, format!("{value} is not a whole number"));
            json!(number(&value).ok_or_else(wrong)?)
        }
        Kind::Duration => {
            let wrong = || FieldError::new(field, format!("{value} is not a duration, such as \"45s\""));
            json!(duration::canonical(value.as_str().unwrap_or_default()).ok_or_else(wrong)?)
        }
        Kind::Name(names) => {
            let index = value.as_u64().and_then(|index| usize::try_from(index).ok());
            index
                .and_then(|index| names.get(index))
                .map_or(value, |name| json!(name))
        }
    };
    let is_absent = match kind {
        Kind::Text => value.as_str() == Some("") || value.as_array().is_some_and(Vec::is_empty),
        Kind::Number => value == 0,
        Kind::Name(names) => names.first().is_some_and(|first| value == *first),
        Kind::Wrapped | Kind::Duration => false,
    };
    Ok(Some(value).filter(|_| !is_absent))
}

fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// `drain_duration` is `drainDuration`: protobuf's JSON may have either.
fn camel_case(field: &str) -> String {
    let mut name = String::with_capacity(field.len());
    let mut upper = false;
    for c in field.chars() {
        match c {
            '_' => upper = true,
            c if upper => {
                name.extend(c.to_uppercase());
                upper = false;
            }
            c => name.push(c),
        }
    }
    name
}

/// Reads YAML; nothing at all, or comments only, is an empty document.
fn parse<T: Default + for<'de> Deserialize<'de>>(text: &str) -> Result<T, serde_saphyr::Error> {
    Ok(yaml::parse(text)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(yaml: &str) -> Result<Value, String> {
        let mut proxy = ProxyConfig::default();
        overlay(&mut proxy, yaml).map_err(|error| error.to_string())?;
        Ok(Value::Object(proxy.0))
    }

    #[test]
    fn spellings_become_the_canonical_one() {
        let cases = [
            ("", json!({})),
            ("# nothing", json!({})),
            ("drain_duration: 1m", json!({"drainDuration": "60s"})),
            ("statusPort: '15999'", json!({"statusPort": 15999})),
            ("statusPort: 0", json!({})),
            ("concurrency: 0", json!({"concurrency": 0})),
            ("interceptionMode: 1", json!({"interceptionMode": "TPROXY"})),
            ("interceptionMode: REDIRECT", json!({})),
            ("meshId: ''", json!({})),
            ("extraStatTags: []", json!({})),
            ("tracing: ~", json!({})),
            ("some_new_field: {a_b: 1}", json!({"someNewField": {"a_b": 1}})),
            (
                "proxyMetadata: {A: ~, b_c: d}",
                json!({"proxyMetadata": {"A": "", "b_c": "d"}}),
            ),
        ];
        for (yaml, wanted) in cases {
            assert_eq!(proxy(yaml), Ok(wanted), "{yaml}");
        }
    }

    #[test]
    fn layers_win_over_earlier_ones_field_by_field_and_metadata_key_by_key() {
        let mut proxy = ProxyConfig::default();
        for layer in [
            "{tracing: {sampling: 1}, proxyMetadata: {A: '1', B: '1'}}",
            "{tracing: {zipkin: {}}, meshId: ~, proxyMetadata: {B: '2'}}",
        ] {
            overlay(&mut proxy, layer).unwrap();
        }
        let wanted = json!({"tracing": {"zipkin": {}}, "proxyMetadata": {"A": "1", "B": "2"}});
        assert_eq!(Value::Object(proxy.0), wanted);
    }

    #[test]
    fn fields_that_istio_would_refuse_are_named() {
        let cases = [
            ("drainDuration: soon", "drainDuration: \"soon\" is not a duration"),
            ("statusPort: many", "statusPort: \"many\" is not a whole number"),
            (
                "proxyMetadata: {A: true}",
                "proxyMetadata.A: must be a string: put true in quotes",
            ),
            ("proxyMetadata: []", "proxyMetadata: must be a map"),
            ("[]", "is not valid YAML"),
            ("a: [", "is not valid YAML"),
        ];
        for (yaml, wanted) in cases {
            let problem = proxy(yaml).unwrap_err();
            assert!(problem.starts_with(wanted), "{yaml}: {problem}");
        }
    }
}
