//! mesh.yaml: YAML to the fields of `defaultConfig`, with their lines. What they mean is `proxy_config`'s business.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};
use serde_saphyr::{Location, Spanned};

use super::camel_case::camel_case;
use super::canonical;
use super::origin::{ParseError, Position};
use crate::facts::ProxyConfig;
use crate::kube::yaml;

/// The fields of `defaultConfig`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct MeshYaml {
    /// Each in its canonical spelling; those that say nothing are left out, as protojson does.
    pub(super) proxy_config: ProxyConfig,
    /// The line of each field's value, as `defaultConfig.FIELD` and `defaultConfig.proxyMetadata.KEY`.
    pub(super) lines: BTreeMap<String, Position>,
    /// The file's other members, which mean nothing to a VM, and where each is.
    pub(super) others: Vec<(String, Position)>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "defaultConfig", alias = "default_config")]
    default_config: Option<Map<String, Value>>,
}

/// The file, read once more for its lines only.
#[derive(Deserialize)]
struct Lines {
    #[serde(default, rename = "defaultConfig", alias = "default_config")]
    default_config: BTreeMap<String, Spanned<IgnoredAny>>,
}

#[derive(Deserialize)]
struct MetadataLines {
    #[serde(default, rename = "defaultConfig", alias = "default_config")]
    default_config: Metadata,
}

#[derive(Default, Deserialize)]
struct Metadata {
    #[serde(default, rename = "proxyMetadata", alias = "proxy_metadata")]
    proxy_metadata: BTreeMap<String, Spanned<IgnoredAny>>,
}

/// Parses a whole file, within bounds on events, depth and aliases.
pub(super) fn parse(text: &str) -> Result<MeshYaml, ParseError> {
    let file: Option<File> = yaml::parse(text).map_err(|error| invalid(&error))?;
    let Some(fields) = file.and_then(|file| file.default_config) else {
        return Err(ParseError::new(
            "defaultConfig: is missing: the file is truncated, or is not the mesh.yaml that istioctl writes",
        ));
    };
    let mut lines = metadata_lines(text);
    lines.extend(field_lines(text));
    let mut proxy_config = ProxyConfig::default();
    canonical::lay(&mut proxy_config, fields).map_err(|error| {
        let error = error.below("defaultConfig");
        ParseError {
            position: lines.get(&error.field).copied(),
            problem: error.to_string(),
        }
    })?;
    Ok(MeshYaml {
        proxy_config,
        lines,
        others: others(text),
    })
}

fn others(text: &str) -> Vec<(String, Position)> {
    let members: BTreeMap<String, Spanned<IgnoredAny>> =
        serde_saphyr::from_str_with_options(text, yaml::options()).unwrap_or_default();
    members
        .into_iter()
        .filter(|(member, _)| camel_case(member) != "defaultConfig")
        .filter_map(|(member, span)| Some((member, position(&span.referenced)?)))
        .collect()
}

fn field_lines(text: &str) -> BTreeMap<String, Position> {
    // It parsed before; without lines messages are poorer and still right.
    serde_saphyr::from_str_with_options(text, yaml::options())
        .map(|Lines { default_config }| {
            let by_name = |(field, span): (String, _)| (camel_case(&field), span);
            numbers("defaultConfig", default_config.into_iter().map(by_name).collect())
        })
        .unwrap_or_default()
}

fn metadata_lines(text: &str) -> BTreeMap<String, Position> {
    serde_saphyr::from_str_with_options(text, yaml::options())
        .map(|MetadataLines { default_config }| numbers("defaultConfig.proxyMetadata", default_config.proxy_metadata))
        .unwrap_or_default()
}

fn numbers(prefix: &str, spans: BTreeMap<String, Spanned<IgnoredAny>>) -> BTreeMap<String, Position> {
    spans
        .into_iter()
        .filter_map(|(key, span)| Some((format!("{prefix}.{key}"), position(&span.referenced)?)))
        .collect()
}

fn invalid(error: &serde_saphyr::Error) -> ParseError {
    // Its own words may quote the file, which may be another one than was meant.
    ParseError {
        position: error.location().and_then(|place| position(&place)),
        problem: "is not valid YAML, or not the mesh.yaml that istioctl writes: a defaultConfig of fields, each once"
            .to_owned(),
    }
}

fn position(place: &Location) -> Option<Position> {
    let number = |number: u64| usize::try_from(number).ok();
    Some(Position::Column(number(place.line())?, number(place.column())?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_have_their_lines() {
        let mesh = parse("defaultConfig:\n  statusPort: 15020\n  odd: null\n  proxyMetadata:\n    A: 'x'\n").unwrap();
        assert_eq!(mesh.proxy_config.port("statusPort"), Some(15020));
        assert!(!mesh.proxy_config.0.contains_key("odd"));
        let line = |key: &str| mesh.lines[&format!("defaultConfig.{key}")].line();
        assert_eq!((line("statusPort"), line("proxyMetadata.A")), (2, 5));
    }

    #[test]
    fn fields_are_read_as_protobufs_json_spells_them() {
        let text = "\u{feff}default_config:\n  discovery_address: a:1\n  drain_duration: 1m0s\n  status_port: '15020'\n  \
                    interceptionMode: 1\n  proxy_metadata: {a_b: c}\n";
        let MeshYaml {
            proxy_config,
            lines,
            others,
        } = parse(text).unwrap();
        assert_eq!(others, []);
        assert_eq!(proxy_config.str("discoveryAddress"), Some("a:1"));
        assert_eq!(proxy_config.str("drainDuration"), Some("60s"));
        assert_eq!(proxy_config.port("statusPort"), Some(15020));
        assert_eq!(proxy_config.str("interceptionMode"), Some("TPROXY"));
        assert_eq!(proxy_config.metadata()["a_b"], "c");
        assert_eq!(lines["defaultConfig.drainDuration"].line(), 3);
        assert_eq!(lines["defaultConfig.proxyMetadata.a_b"], Position::Column(6, 25));
    }

    #[test]
    fn members_beside_default_config_are_told_apart() {
        let mesh = parse("trustDomain: a\ndefaultConfig: {statusPort: 15020}\nrootNamespace:\n  b\n").unwrap();
        let others: Vec<(&str, usize)> = mesh
            .others
            .iter()
            .map(|(member, at)| (member.as_str(), at.line()))
            .collect();
        assert_eq!(others, [("rootNamespace", 4), ("trustDomain", 1)]);
    }

    #[test]
    fn mesh_yaml_that_is_broken_is_named_with_its_line() {
        let cases = [
            ("", None, "defaultConfig: is missing"),
            ("{}", None, "defaultConfig: is missing"),
            ("defaultConfig:\n", None, "defaultConfig: is missing"),
            ("a: [", Some(1), "is not valid YAML"),
            ("defaultConfig:\n  a: 1\n  a: 2\n", Some(3), "each once"),
            ("defaultConfig: 7", Some(1), "is not valid YAML"),
            (
                "defaultConfig:\n  proxyMetadata:\n    A: true\n",
                Some(3),
                "defaultConfig.proxyMetadata.A: must be a string",
            ),
            (
                "defaultConfig:\n  proxyMetadata: [a]\n",
                Some(2),
                "proxyMetadata: must be a map",
            ),
            (
                "defaultConfig:\n  drainDuration: 1s\n  drain_duration: 2s\n",
                Some(3),
                "drainDuration: is there in both of its spellings",
            ),
            ("a: 1\n---\nb: 2", Some(3), "is not valid YAML"),
        ];
        for (text, line, wanted) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.problem.contains(wanted), "{text:?}: {error:?}");
            assert_eq!(error.line(), line, "{text:?}: {error:?}");
        }
    }

    #[test]
    fn alias_bombs_are_refused() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..20 {
            let before = format!("*a{}, ", n - 1).repeat(9);
            text.push_str(&format!("a{n}: &a{n} [{before}]\n"));
        }
        text.push_str("defaultConfig: {x: *a19}\n");
        assert!(parse(&text).is_err());
        assert!(parse(&format!("defaultConfig: {}", "[".repeat(100_000))).is_err());
    }

    proptest! {
        #[test]
        fn mesh_yaml_of_any_text_is_read_without_a_panic(text in any::<Vec<u8>>(), yamlish in "(defaultConfig:|[ \n:&*a\\[\\]{}'\"-]){0,40}") {
            let _ = parse(&String::from_utf8_lossy(&text));
            let _ = parse(&yamlish);
        }
    }
}
