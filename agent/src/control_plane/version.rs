//! The version of a control plane, by its own word: JSON in `control_plane.identifier` of a response
//! (istio/pilot/pkg/xds/xdsgen.go).

use std::time::SystemTime;

use anyhow::{Result, anyhow};
use istio_api::ads::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use istio_api::ads::{DiscoveryRequest, Node, SYNC_STATUS};
use istio_api::rpc::{Struct, Value, value::Kind};
use serde::Deserialize;
use tokio_stream::StreamExt;
use tonic::Request;

use super::auth::authorize;
use super::connect::Connection;
use super::token::TokenSource;
use crate::facts::{Credentials, Membership};

/// Largest answer, in bytes: it lists the proxies of this VM's namespace, or with older istiods all of the mesh.
const MAX_RESPONSE: usize = 64 << 20;
/// Longest version, in bytes; none is so long.
const MAX_VERSION: usize = 64;

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "Info")]
    info: Info,
}

#[derive(Deserialize)]
struct Info {
    version: String,
}

/// Asks istiod for its version on a stream of its own, as istioctl does; `None` when the answer doesn't say. Only for who
/// asks once: the answer may be long.
///
/// # Errors
/// When istiod refuses the question.
pub async fn version(
    connection: Connection,
    membership: &Membership,
    credentials: Option<&Credentials>,
    tokens: Option<&dyn TokenSource>,
    now: SystemTime,
) -> Result<Option<String>> {
    let question = DiscoveryRequest {
        node: Some(node(membership)),
        type_url: SYNC_STATUS.to_owned(),
        ..DiscoveryRequest::default()
    };
    // istiod ends the stream with the requests.
    let mut request = Request::new(tokio_stream::iter([question]).chain(tokio_stream::pending()));
    let method = authorize(request.metadata_mut(), membership, credentials, tokens, now).await?;
    let mut client = AggregatedDiscoveryServiceClient::new(connection.channel).max_decoding_message_size(MAX_RESPONSE);
    let answered = async {
        client
            .stream_aggregated_resources(request)
            .await?
            .into_inner()
            .message()
            .await
    };
    let answer = answered.await.map_err(|status| {
        anyhow!(
            "istiod at {}: {}",
            connection.address,
            method.explain(&status, membership, now)
        )
    })?;
    Ok(answer
        .and_then(|answer| answer.control_plane)
        .and_then(|it| parse(&it.identifier)))
}

/// A node that is no proxy to be configured: it names its identity, and no group to register in.
fn node(membership: &Membership) -> Node {
    let id = &membership.spiffe_id;
    let namespace = &id.namespace;
    let ip = membership
        .instance_ips
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let text = |key: &str, text: &str| {
        let kind = Some(Kind::StringValue(text.to_owned()));
        (key.to_owned(), Value { kind })
    };
    let fields = [
        text("NAMESPACE", namespace),
        text("SERVICE_ACCOUNT", &id.service_account),
    ]
    .into();
    Node {
        id: format!(
            "sidecar~{ip}~check.{namespace}~{namespace}.svc.{}",
            membership.cluster_domain
        ),
        metadata: Some(Struct { fields }),
        ..Node::default()
    }
}

pub(super) fn parse(identifier: &str) -> Option<String> {
    let Identifier { info } = serde_json::from_str(identifier).ok()?;
    let is_good = |version: &str| version.len() <= MAX_VERSION && version.chars().all(|c| c.is_ascii_graphic());
    Some(info.version).filter(|version| !version.is_empty() && is_good(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_and_nothing_else_is_one() {
        let real = r#"{"Component":"istiod","ID":"istiod-6d9f","Info":{"version":"1.31.2","revision":"8ecb879","golang_version":"go1.26","status":"Clean","tag":"1.31.2"}}"#;
        assert_eq!(parse(real).as_deref(), Some("1.31.2"));
        for text in [
            "",
            "istiod",
            "{}",
            r#"{"Info":{}}"#,
            r#"{"Info":{"version":""}}"#,
            r#"{"Info":{"version":"1.31\n2"}}"#,
            r#"{"Info":{"version":7}}"#,
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
        let long = format!(r#"{{"Info":{{"version":"{}"}}}}"#, "1".repeat(65));
        assert_eq!(parse(&long), None);
    }

    proptest::proptest! {
        #[test]
        fn identifier_of_any_text_is_read(text in "\\PC{0,80}") {
            parse(&text);
        }
    }
}
