//! The mesh's configuration: MeshConfig and ProxyConfig as YAML, read as Istio reads them.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::facts::ProxyConfig;
use crate::join::canonical::{encode, lay};
use crate::join::field_error::FieldError;
use crate::kube::yaml;

/// istio/pkg/config/mesh/mesh.go, DefaultMeshConfig.
const TRUST_DOMAIN: &str = "cluster.local";

/// Why a mesh's configuration, or a part of it, is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum MeshConfigError {
    #[error("is not valid YAML, or not what istiod reads: fields, each once{}", position(.0))]
    Yaml(#[from] serde_saphyr::Error),
    #[error(transparent)]
    Field(#[from] FieldError),
}

/// Where in the text; the library's own words may quote it.
fn position(error: &serde_saphyr::Error) -> String {
    let place = error.location();
    place.map_or_else(String::new, |place| {
        format!(" (line {}, column {})", place.line(), place.column())
    })
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
        encode(&mut proxy);
        let trust_domain = file.trust_domain.filter(|domain| !domain.is_empty());
        Ok(Self {
            trust_domain: trust_domain.unwrap_or_else(|| TRUST_DOMAIN.to_owned()),
            proxy,
        })
    }
}

/// Lays YAML over `proxy`, field by field; `proxyMetadata` key by key.
pub(super) fn overlay(proxy: &mut ProxyConfig, yaml: &str) -> Result<(), MeshConfigError> {
    lay(proxy, parse(yaml)?)?;
    encode(proxy);
    Ok(())
}

/// Reads YAML; nothing at all, or comments only, is an empty document.
fn parse<T: Default + for<'de> Deserialize<'de>>(text: &str) -> Result<T, serde_saphyr::Error> {
    Ok(yaml::parse(text)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
