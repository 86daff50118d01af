//! Prometheus' HTTP API: instant queries of one number.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Url};
use serde_json::Value;

use super::queries::{Queries, Side};
use super::{Figures, Verdict, judge};
use crate::migration::{Migration, Share};

/// Time for one query.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: one number and its labels.
const MAX_BYTES: usize = 1 << 20;

/// The Prometheus of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Prometheus {
    url: Url,
    client: Client,
}

impl Prometheus {
    /// The one at `base`, such as `http://prometheus:9090`; it may have a path.
    pub(crate) fn new(base: &str) -> Result<Self> {
        let url = format!("{}/api/v1/query", base.trim_end_matches('/'));
        let url: Url = url
            .parse()
            .with_context(|| format!("prometheus = {base:?} is no URL"))?;
        let client = Client::builder().timeout(DEADLINE);
        // Without TLS no roots are needed, and a machine may have none.
        let client = if url.scheme() == "http" {
            client.tls_certs_only([])
        } else {
            client
        };
        Ok(Self {
            client: client.build()?,
            url,
        })
    }

    /// The verdict on the pods in this cluster now. One who gives no answer gives no verdict.
    pub(crate) async fn verdict(&self, migration: &Migration, share: Share, is_whole: bool) -> Verdict {
        let of = |side| self.figures(Queries::new(migration, side));
        match tokio::try_join!(of(Side::Vm), of(Side::Pods)) {
            Ok((vm, pods)) => judge(&migration.gate, share, is_whole, vm, pods),
            Err(error) => Verdict::Unknown(format!("{error:#}")),
        }
    }

    /// The calls that ended at the VM in the last window.
    pub(crate) async fn calls_to_vm(&self, migration: &Migration) -> Result<f64> {
        let queries = Queries::new(migration, Side::Vm);
        Ok(self.number(&queries.requests).await?.unwrap_or_default())
    }

    async fn figures(&self, queries: Queries) -> Result<Figures> {
        let (requests, succeeded, p99) = tokio::try_join!(
            self.number(&queries.requests),
            self.number(&queries.succeeded),
            self.number(&queries.p99)
        )?;
        let requests = requests.unwrap_or_default();
        // Series of calls that succeeded are missing where all fail.
        let success = (requests > 0.0).then(|| (succeeded.unwrap_or_default() / requests).min(1.0));
        Ok(Figures { requests, success, p99 })
    }

    /// The value of a query; absent: there is no series, or it is NaN.
    async fn number(&self, query: &str) -> Result<Option<f64>> {
        let about = || format!("Prometheus at {}", self.url);
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("query", query);
        let mut response = self.client.get(url).send().await.with_context(about)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.with_context(about)? {
            body.extend_from_slice(&chunk);
            ensure!(
                body.len() <= MAX_BYTES,
                "{}: an answer of more than {MAX_BYTES} bytes",
                about()
            );
        }
        let answer: Value = serde_json::from_slice(&body).with_context(|| format!("{}: no JSON", about()))?;
        ensure!(
            answer["status"] == "success",
            "{}: {}",
            about(),
            answer["error"].as_str().unwrap_or("no answer of Prometheus")
        );
        let value = answer["data"]["result"][0]["value"][1].as_str();
        let number = value.map(str::parse::<f64>).transpose().with_context(about)?;
        Ok(number.filter(|number| number.is_finite()))
    }
}
