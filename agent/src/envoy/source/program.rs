//! The version and the build of an Envoy program, found by running it: as the user that it runs as later, not as root.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;

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

/// Takes the version out of a build's name, `<commit>/1.40.0/Clean/RELEASE/BoringSSL`.
pub(in crate::envoy) fn parse_version(text: &str) -> Result<String> {
    let version = text.trim().split('/').nth(1);
    let version = version.filter(|version| version.starts_with(|first: char| first.is_ascii_digit()));
    Ok(version
        .with_context(|| format!("{:?} is no version of Envoy", text.trim()))?
        .to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Run;

    #[test]
    fn version_is_read_of_releases_and_of_istios_builds_and_of_nothing_else() {
        let release = "\n9e55809/1.40.0/Clean/RELEASE/BoringSSL\n";
        assert_eq!(parse_version(release).unwrap(), "1.40.0");
        let istio = "73fe00fc139fd5053f4c4a5d66569cc254449896/1.39.0-dev/Clean/RELEASE/BoringSSL";
        assert_eq!(parse_version(istio).unwrap(), "1.39.0-dev");
        for text in ["", "1.40.0", "a/", "a/b/c"] {
            assert!(parse_version(text).is_err(), "{text}");
        }
    }

    /// An Envoy that ends well, or with these words on stderr.
    #[derive(Debug)]
    struct Ends(Option<&'static str>);

    impl Run for Ends {
        fn run(&self, call: &Invocation) -> Result<String, CommandError> {
            assert_eq!(call.user, nix::unistd::geteuid().is_root().then_some(ENVOY_USER));
            match self.0 {
                None => Ok(String::new()),
                Some(stderr) => Err(CommandError::Failed {
                    call: Box::new(call.clone()),
                    status: "exit status: 1".to_owned(),
                    stderr: stderr.to_owned(),
                }),
            }
        }
    }

    #[test]
    fn build_is_known_by_the_filter_that_it_lacks() {
        let of = |said| build(&Host::new("/", Ends(said)), Path::new("/e"));
        let lacks = "error initializing configuration '': Didn't find a registered implementation for 'istio.alpn'";
        assert_eq!(of(Some(lacks)).unwrap(), Build::Vanilla);
        assert_eq!(of(None).unwrap(), Build::Istio);
        assert!(of(Some("no such flag")).is_err());
    }
}
