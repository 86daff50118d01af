//! Sources that are merged into the page, as Istio's agent is told it: in `cluster.env`, or in mesh.yaml's
//! `proxyMetadata`.

use std::fmt;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use crate::config::ports;
use crate::facts::Membership;

/// Istio's variable for the application's endpoints, which its injector makes of a pod's annotations.
const VARIABLE: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// A WorkloadGroup's annotations.
const ANNOTATIONS: &str = "ISTIO_METAJSON_ANNOTATIONS";
/// Most endpoints of an application.
const MOST: usize = 8;

/// An endpoint with metrics on this VM's loopback.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Target {
    pub(super) port: u16,
    /// With a leading slash.
    pub(super) path: String,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://localhost:{}{}", self.port, self.path)
    }
}

/// Reads the application's endpoints.
pub(super) struct Targets;

/// The variable's document. Numbers are strings there.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    scrape: String,
    path: String,
    port: String,
    targets: Vec<Endpoint>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Endpoint {
    port: String,
    path: String,
}

impl Targets {
    /// The endpoints of this VM's application; none where nothing names any.
    ///
    /// # Errors
    /// When what names them is wrong: which variable, and what to do.
    pub(super) fn of(membership: &Membership) -> Result<Vec<Target>> {
        if let Some(text) = variable(membership, VARIABLE) {
            return Self::parse(&text)
                .with_context(|| format!("{VARIABLE} is wrong, so the application is not scraped"));
        }
        let Some(text) = variable(membership, ANNOTATIONS) else {
            return Ok(Vec::new());
        };
        Self::of_annotations(&text).with_context(|| {
            format!("{ANNOTATIONS} has wrong prometheus.io annotations, so the application is not scraped")
        })
    }

    /// Reads the variable.
    pub(super) fn parse(text: &str) -> Result<Vec<Target>> {
        let annotations: Annotations = serde_json::from_str(text)?;
        if annotations.scrape == "false" {
            return Ok(Vec::new());
        }
        let one = |path, port| Endpoint { port, path };
        let endpoints = match annotations.targets.is_empty() {
            true => vec![one(annotations.path, or(&annotations.port, "80"))],
            false => annotations.targets,
        };
        ensure!(
            endpoints.len() <= MOST,
            "{} targets, at most {MOST} are scraped",
            endpoints.len()
        );
        endpoints.iter().map(target).collect()
    }

    /// A VM is scraped when it says so; a pod's injector takes it for granted.
    fn of_annotations(text: &str) -> Result<Vec<Target>> {
        let annotations: Value = serde_json::from_str(text)?;
        let get = |key: &str| annotations.get(key).and_then(Value::as_str).unwrap_or_default();
        let merges = get("prometheus.istio.io/merge-metrics") != "false";
        if get("prometheus.io/scrape") != "true" || !merges {
            return Ok(Vec::new());
        }
        let endpoint = Endpoint {
            port: or(get("prometheus.io/port"), "80"),
            path: get("prometheus.io/path").to_owned(),
        };
        Ok(vec![target(&endpoint)?])
    }
}

/// A variable of cluster.env, or else of `proxyMetadata`.
pub(super) fn variable(membership: &Membership, name: &str) -> Option<String> {
    let env = membership.env.get(name).cloned();
    let value = env.or_else(|| membership.proxy_config.metadata().remove(name));
    value.filter(|value| !value.is_empty())
}

fn target(endpoint: &Endpoint) -> Result<Target> {
    let port: u16 = endpoint
        .port
        .parse()
        .with_context(|| format!("port {:?} is none", endpoint.port))?;
    if let Err(problem) = ports::check_free(port) {
        bail!("{problem}");
    }
    let path = or(&endpoint.path, "/metrics");
    let path = if path.starts_with('/') {
        path
    } else {
        format!("/{path}")
    };
    ensure!(
        path.bytes().all(|byte| byte.is_ascii_graphic()),
        "path {path:?} is none of a URL: escape what is not ASCII"
    );
    Ok(Target { port, path })
}

fn or(text: &str, default: &str) -> String {
    if text.is_empty() {
        default.to_owned()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control_plane::fixtures::membership;

    fn told(variable: &str, value: &str) -> Result<Vec<String>> {
        let mut membership = membership();
        membership.env.insert(variable.to_owned(), value.to_owned());
        let targets = Targets::of(&membership)?;
        Ok(targets.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn endpoints_are_read_as_istios_agent_reads_them() {
        let of_variable = |value| told(VARIABLE, value).unwrap();
        assert_eq!(of_variable("{}"), ["http://localhost:80/metrics"]);
        assert_eq!(
            of_variable(r#"{"scrape":"true","path":"stats","port":"9090"}"#),
            ["http://localhost:9090/stats"]
        );
        assert_eq!(
            of_variable(r#"{"targets":[{"port":"9090"},{"port":"9091","path":"/b"}]}"#),
            ["http://localhost:9090/metrics", "http://localhost:9091/b"]
        );
        assert!(of_variable(r#"{"scrape":"false"}"#).is_empty());
        let of_group = |value| told(ANNOTATIONS, value).unwrap();
        assert!(of_group(r#"{"prometheus.io/port":"9090"}"#).is_empty());
        assert_eq!(
            of_group(r#"{"prometheus.io/scrape":"true","prometheus.io/port":"9090"}"#),
            ["http://localhost:9090/metrics"]
        );
        assert!(of_group(r#"{"prometheus.io/scrape":"true","prometheus.istio.io/merge-metrics":"false"}"#).is_empty());
    }

    #[test]
    fn endpoint_of_the_mesh_itself_is_refused() {
        for port in ["15020", "015020", "15090", "0", "70000", "http"] {
            let refused = told(VARIABLE, &format!(r#"{{"port":"{port}"}}"#)).unwrap_err();
            assert!(format!("{refused:#}").starts_with(VARIABLE), "{refused:#}");
        }
        assert!(told(VARIABLE, r#"{"port":"9090","path":"/a b"}"#).is_err());
        assert!(told(VARIABLE, "[").is_err());
    }
}
