//! Properties of Google's answers about a cluster, whatever they say.

use http::StatusCode;

use super::endpoint;
use super::refusal as refusals;
use crate::config::{GkeConfig, GkeEndpoint, KeyOrigin};
use crate::google::cluster::Cluster;

/// A cluster's description.
pub(crate) fn cluster(text: &str) {
    let Ok(cluster) = Cluster::parse(text) else { return };
    for wanted in [
        GkeEndpoint::Auto,
        GkeEndpoint::Private,
        GkeEndpoint::Public,
        GkeEndpoint::Dns,
    ] {
        for endpoint in endpoint::wanted(&cluster, wanted, KeyOrigin::Gke).into_iter().flatten() {
            assert!(wanted == GkeEndpoint::Auto || endpoint.kind == wanted);
            let host = endpoint
                .server
                .strip_prefix("https://")
                .expect("it is reached over TLS");
            assert!(!host.contains(|c: char| c == '/' || c == '@' || c.is_whitespace()));
        }
    }
}

/// The status and the text of an answer that is no success.
pub(crate) fn refusal(input: &str) {
    let (code, text) = input.split_once('\0').unwrap_or(("403", input));
    let config: GkeConfig =
        toml::from_str("project = 'p'\nlocation = 'l'\ncluster = 'c'\nnamespace = 'n'\nworkload_group = 'g'")
            .expect("a configuration");
    let told = refusals::explain(code.parse().unwrap_or(StatusCode::FORBIDDEN), text, &config);
    assert!(told.lines().count() == 1 && told.chars().count() < 2000);
}
