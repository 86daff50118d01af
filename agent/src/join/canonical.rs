//! ProxyConfig's fields in the one spelling that a bundle has, from the several that protobuf's JSON and Istio take: Istio
//! decodes them, and encodes them again.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::camel_case::camel_case;
use super::field_error::FieldError;
use super::field_types;
use crate::facts::{ProxyConfig, duration, number};

const METADATA: &str = "proxyMetadata";

/// The spellings of a field of ProxyConfig in protobuf's JSON.
#[derive(Clone, Copy, Debug)]
enum Kind {
    /// A string; empty is absent.
    Text,
    /// A list of strings; empty is absent.
    Texts,
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
    ("caCertificatesPem", Kind::Texts),
    ("discoveryAddress", Kind::Text),
    ("drainDuration", Kind::Duration),
    ("extraStatTags", Kind::Texts),
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

/// Lays fields over `proxy`, one by one; `proxyMetadata` key by key.
pub(super) fn lay(proxy: &mut ProxyConfig, fields: Map<String, Value>) -> Result<(), FieldError> {
    let mut seen = BTreeSet::new();
    for (written, value) in fields {
        let field = camel_case(&written);
        if !seen.insert(field.clone()) {
            return Err(FieldError::new(
                field,
                "is there in both of its spellings: remove one of them",
            ));
        }
        if value.is_null() {
            continue;
        }
        if field == METADATA {
            extend_metadata(proxy, metadata(&value)?);
            continue;
        }
        let value = canonical(&field, value)?;
        set(proxy, &field, Some(value));
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

/// The one spelling of a value.
fn canonical(field: &str, value: Value) -> Result<Value, FieldError> {
    let Some((_, kind)) = KINDS.iter().find(|(name, _)| *name == field) else {
        return match field_types::problem(field, &value) {
            Some(problem) => Err(FieldError::new(field, problem)),
            None => Ok(value),
        };
    };
    Ok(match kind {
        Kind::Text if !value.is_string() => {
            return Err(FieldError::new(field, format!("must be text: put {value} in quotes")));
        }
        Kind::Texts if !is_list_of_texts(&value) => {
            return Err(FieldError::new(
                field,
                "must be a list of texts, such as [\"a\", \"b\"]",
            ));
        }
        Kind::Text | Kind::Texts => value,
        Kind::Number | Kind::Wrapped => {
            let wrong = || FieldError::new(field, format!("{value} is not a whole number"));
            json!(whole(&value).ok_or_else(wrong)?)
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
    })
}

/// Takes out the fields whose value means the same as none, as Istio does when it encodes them.
pub(super) fn encode(proxy: &mut ProxyConfig) {
    proxy.0.retain(|field, value| {
        let kind = KINDS.iter().find(|(name, _)| name == field).map(|(_, kind)| kind);
        !match kind {
            Some(Kind::Text) => value.as_str() == Some(""),
            Some(Kind::Texts) => value.as_array().is_some_and(Vec::is_empty),
            Some(Kind::Number) => *value == 0,
            Some(Kind::Name(names)) => names.first().is_some_and(|first| *value == *first),
            Some(Kind::Wrapped | Kind::Duration) | None => false,
        }
    });
}

fn is_list_of_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}

fn whole(value: &Value) -> Option<i64> {
    let digits = |text: &str| match text.strip_prefix('-') {
        Some(digits) => number::whole::<i64>(digits).map(|number| -number),
        None => number::whole(text),
    };
    value.as_i64().or_else(|| digits(value.as_str()?))
}
