//! Envoy: where it comes from, whether it is there, what it is.

use std::path::Path;

use tokio::time::timeout;

use super::NETWORK_TIMEOUT;
use crate::config::{Config, EnvoySource};
use crate::envoy::{self, Build, Located};
use crate::host::Host;
use crate::part::Finding;

const NAME: &str = "envoy";

/// And its version, where it is here.
pub(super) async fn finding(config: &Config, host: &Host) -> (Finding, Option<String>) {
    let options = envoy::Options::new(host.clone(), config, None);
    let source = config.envoy.source();
    match envoy::locate(&options) {
        Located::Here(path) => program(host, &source, &path),
        Located::ToFetch(_) => (to_fetch(&options, &source).await, None),
    }
}

async fn to_fetch(options: &envoy::Options, source: &EnvoySource) -> Finding {
    let problem = match timeout(NETWORK_TIMEOUT, envoy::is_fetchable(options)).await {
        Ok(Ok(())) => return Finding::ok(NAME, format!("{source}: not fetched yet, and there to be")),
        Ok(Err(error)) => format!("{source}: not fetched yet, and can't be: {error:#}"),
        Err(_) => {
            format!("{source}: not fetched yet, and no answer within {NETWORK_TIMEOUT:?}: does this VM reach it?")
        }
    };
    match envoy::earlier(options) {
        None => Finding::failed(NAME, problem),
        Some(earlier) => Finding::warning(NAME, format!("{problem}; until then {} serves", earlier.display())),
    }
}

fn program(host: &Host, source: &EnvoySource, path: &Path) -> (Finding, Option<String>) {
    let version = match envoy::version(host, path) {
        Ok(version) => version,
        Err(error) => {
            let remedy = match source {
                EnvoySource::Binary(_) => "set envoy.binary to a working Envoy, or envoy.image to Istio's proxyv2",
                _ => "is it for this kind of machine, and may programs run from paths.state (no `noexec`)?",
            };
            return (Finding::failed(NAME, format!("{error:#}: {remedy}")), None);
        }
    };
    let is = format!("{source}: version {version}");
    let finding = match envoy::build(host, path) {
        Ok(Build::Istio) => Finding::ok(NAME, format!("{is}, Istio's build")),
        Ok(Build::Vanilla) => Finding::warning(
            NAME,
            format!(
                "{is}, without Istio's own filters: it refuses what istiod makes with istio.alpn, istio.stats, \
                 istio.metadata_exchange; use envoy.image with Istio's proxyv2, or switch those off in istiod"
            ),
        ),
        Err(error) => Finding::warning(NAME, format!("{is}; {error:#}")),
    };
    (finding, Some(version))
}
