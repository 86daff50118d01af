//! The Kubernetes Engine API (container.googleapis.com), as far as a VM asks it.

use anyhow::{Context, Error};
use http::StatusCode;

use super::Metadata;
use super::cluster::Cluster;
use crate::web::{Client, Patience, Trust};

/// Longest answer, in bytes: a cluster with a thousand node pools describes itself in less.
const MAX_BYTES: usize = 4 << 20;

/// Why a cluster's description was not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Google said no.
    #[error("the Kubernetes Engine API answers {status}")]
    Refused {
        status: StatusCode,
        /// A google.rpc.Status as JSON, if it is one.
        text: String,
    },
    /// There was no answer that could be used.
    #[error(transparent)]
    Unanswered(#[from] Error),
}

/// Asks `api`, whom `trust` vouches for, for the cluster `projects/…/locations/…/clusters/…`, as the VM's service account.
pub(crate) async fn describe(metadata: &Metadata, trust: Trust, api: &str, cluster: &str) -> Result<Cluster, Failure> {
    let token = metadata.access_token().await?;
    let client = Client::new(trust, Patience::default())?;
    let url = format!("{}/v1/{cluster}", api.trim_end_matches('/'));
    let request = client.get(&url).bearer_auth(token.expose());
    let answer = Box::pin(client.exchange(request, MAX_BYTES))
        .await
        .context("a VM without an external address needs Private Google Access in its subnet to reach Google's APIs")?;
    match answer.status {
        StatusCode::OK => {
            let cluster = Cluster::parse(&answer.text);
            Ok(cluster.with_context(|| format!("{url} gave what is no cluster"))?)
        }
        status => {
            if status == StatusCode::UNAUTHORIZED {
                metadata.forget_token();
            }
            let text = answer.text;
            Err(Failure::Refused { status, text })
        }
    }
}
