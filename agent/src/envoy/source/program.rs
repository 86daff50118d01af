//! The version and the build of an Envoy program, found by running it: as the user that it runs as later, not as root.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

use crate::envoy::build_name::parse_version;
use crate::host::{CommandError, Host, Invocation};
use crate::part::ENVOY_USER;

/// Envoy's words about an extension that it wasn't built with.
const UNKNOWN: &str = "Didn't find a registered implementation";

/// The build of an Envoy program.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Build {
    /// Istio's build, with the `istio.*` filters.
    Istio,
    /// Envoy's own build, without them.
    Vanilla,
}

/// Asks an Envoy program for its version, such as `1.40.0`; blocks.
pub fn version(host: &Host, binary: &Path) -> Result<String> {
    let call = Invocation::new([binary.to_string_lossy().as_ref(), "--version"]).as_user(ENVOY_USER);
    let text = host.run(&call).context("failed to run Envoy")?;
    let version = text.split("version:").nth(1).unwrap_or_default();
    parse_version(version).with_context(|| format!("{} is not Envoy", binary.display()))
}

/// Finds out whether an Envoy program has Istio's filters, by having it judge a configuration with one; blocks.
pub fn build(host: &Host, binary: &Path) -> Result<Build> {
    let config = with_an_istio_filter();
    let program = binary.to_string_lossy();
    let call = Invocation::new([
        program.as_ref(),
        "--mode",
        "validate",
        "--disable-hot-restart",
        "-l",
        "error",
        "--config-yaml",
        &config,
    ])
    .as_user(ENVOY_USER);
    match host.run(&call) {
        Ok(_) => Ok(Build::Istio),
        Err(CommandError::Failed { stderr, .. }) if stderr.contains(UNKNOWN) => Ok(Build::Vanilla),
        Err(error) => Err(error).context("failed to tell whether it has Istio's filters"),
    }
}

/// A configuration with one of Istio's filters, as YAML, which JSON is a part of.
fn with_an_istio_filter() -> String {
    let typed = |name: &str, url: &str| json!({ "name": name, "typed_config": { "@type": url } });
    let proxy = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    json!({ "static_resources": { "listeners": [{
        "name": "x",
        "address": { "socket_address": { "address": "127.0.0.1", "port_value": 1 } },
        "filter_chains": [{ "filters": [{
            "name": "x",
            "typed_config": { "@type": proxy, "stat_prefix": "x", "route_config": {}, "http_filters": [
                { "name": "istio.alpn", "typed_config": {
                    "@type": "type.googleapis.com/udpa.type.v1.TypedStruct",
                    "type_url": "type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
                    "value": {},
                } },
                typed("x", "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"),
            ] },
        }] }],
    }] } })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::fixtures::{Answers, failed};

    #[test]
    fn version_is_asked_for_as_the_user_that_envoy_runs_as() {
        let envoy = Answers(|call: &Invocation| {
            assert_eq!(call.to_string(), "/e --version");
            assert_eq!(call.user, nix::unistd::geteuid().is_root().then_some(ENVOY_USER));
            Ok("envoy  version: 0a/1.38.3/Clean/RELEASE/BoringSSL\n".to_owned())
        });
        assert_eq!(version(&Host::new("/", envoy), Path::new("/e")).unwrap(), "1.38.3");
    }

    #[test]
    fn build_is_known_by_the_filter_that_it_lacks() {
        let of = |stderr: Option<&'static str>| {
            let envoy = Answers(move |call: &Invocation| {
                assert_eq!(call.user, nix::unistd::geteuid().is_root().then_some(ENVOY_USER));
                stderr.map_or_else(|| Ok(String::new()), |stderr| failed(call, stderr))
            });
            build(&Host::new("/", envoy), Path::new("/e"))
        };
        let lacks = "error initializing configuration '': Didn't find a registered implementation for 'istio.alpn'";
        assert_eq!(of(Some(lacks)).unwrap(), Build::Vanilla);
        assert_eq!(of(None).unwrap(), Build::Istio);
        assert!(of(Some("no such flag")).is_err());
    }
}
