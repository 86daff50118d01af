//! Prometheus' HTTP API: instant queries whose answers are figures by name.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Url};
use serde::Deserialize;

use super::queries::{self, Figure, Side};
use super::{Figures, Judgment, Verdict, judge};
use crate::migration::{Migration, Protocol, Share};
use crate::names::Names;

/// Time for one query.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer, in bytes: some numbers and their labels.
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
        let url: Url = url.parse().context("a cluster's `prometheus` is no URL")?;
        let client = Client::builder().timeout(DEADLINE).dns_resolver(Names);
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

    /// The judgment on the pods in this cluster now. One who gives no answer gives no verdict.
    pub(crate) async fn judgment(&self, migration: &Migration, share: Share, is_whole: bool) -> Judgment {
        match self.figures(&queries::all(migration)).await {
            Ok(told) => {
                let [vm, pods] = [Side::Vm, Side::Pods].map(|side| of_side(&told, side));
                Judgment {
                    verdict: judge(&migration.gate, share, is_whole, vm, pods),
                    figures: Some((vm, pods)),
                }
            }
            Err(error) => Judgment {
                verdict: Verdict::Unknown(format!("{error:#}")),
                figures: None,
            },
        }
    }

    /// The calls that ended at the VM in the last window; of TCP the connections that are open there.
    pub(crate) async fn calls_to_vm(&self, migration: &Migration) -> Result<f64> {
        let query = match migration.protocol {
            Protocol::Http => queries::one(migration, Side::Vm, Figure::Requests),
            Protocol::Tcp => queries::open_at_vm(migration),
        };
        Ok(of_side(&self.figures(&query).await?, Side::Vm).requests)
    }

    /// The figures of a query, by their names; one is absent when it has no series, or is NaN.
    async fn figures(&self, query: &str) -> Result<BTreeMap<String, f64>> {
        // The query is long, and known.
        let about = || format!("Prometheus at {}", without_password(&self.url));
        let plain = reqwest::Error::without_url;
        let mut url = self.url.clone();
        url.query_pairs_mut().append_pair("query", query);
        let mut response = self.client.get(url).send().await.map_err(plain).with_context(about)?;
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(plain).with_context(about)? {
            body.extend_from_slice(&chunk);
            ensure!(
                body.len() <= MAX_BYTES,
                "{}: an answer of more than {MAX_BYTES} bytes",
                about()
            );
        }
        parse(&body).with_context(about)
    }
}

/// `url` as it may be shown.
fn without_password(url: &Url) -> Url {
    let mut shown = url.clone();
    // A URL without a host has none.
    let _ = shown.set_password(None);
    let _ = shown.set_username("");
    shown
}

/// An answer to an instant query (<https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>).
#[derive(Deserialize)]
struct Answer {
    status: String,
    error: Option<String>,
    #[serde(default)]
    data: Data,
}

#[derive(Default, Deserialize)]
struct Data {
    result: Vec<Sample>,
}

#[derive(Deserialize)]
struct Sample {
    metric: BTreeMap<String, String>,
    /// A time and a number, which is text.
    value: (f64, String),
}

pub(super) fn parse(body: &[u8]) -> Result<BTreeMap<String, f64>> {
    let answer: Answer = serde_json::from_slice(body).context("no answer to a query")?;
    ensure!(
        answer.status == "success",
        "{}",
        answer.error.as_deref().unwrap_or("no success")
    );
    let mut figures = BTreeMap::new();
    for mut sample in answer.data.result {
        let number: f64 = sample.value.1.parse().context("a value that is no number")?;
        if let Some(name) = sample.metric.remove(queries::LABEL).filter(|_| number.is_finite()) {
            figures.insert(name, number);
        }
    }
    Ok(figures)
}

pub(super) fn of_side(told: &BTreeMap<String, f64>, side: Side) -> Figures {
    let of = |figure| told.get(&queries::name(side, figure)).copied();
    let requests = of(Figure::Requests).unwrap_or_default();
    Figures {
        requests,
        // Series of calls that succeeded are missing where all fail.
        success: (requests > 0.0).then(|| (of(Figure::Succeeded).unwrap_or_default() / requests).min(1.0)),
        p99: of(Figure::P99),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(samples: &str) -> Vec<u8> {
        format!(r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#).into_bytes()
    }

    #[test]
    fn figures_are_told_apart_by_their_names() {
        let sample =
            |name: &str, number: &str| format!(r#"{{"metric":{{"figure":"{name}"}},"value":[1.5,"{number}"]}}"#);
        let samples = [
            sample("VmRequests", "4000"),
            sample("PodsRequests", "1000"),
            sample("PodsSucceeded", "950"),
            sample("PodsP99", "NaN"),
        ];
        let told = parse(&answer(&samples.join(","))).unwrap();
        let expected = Figures {
            requests: 1000.0,
            success: Some(0.95),
            p99: None,
        };
        assert_eq!(of_side(&told, Side::Pods), expected);
        // None of them succeeded.
        assert_eq!(of_side(&told, Side::Vm).success, Some(0.0));
        assert_eq!(of_side(&parse(&answer("")).unwrap(), Side::Vm), Figures::default());
    }

    #[test]
    fn password_of_the_url_is_not_shown() {
        let url = "http://jane:secret@127.0.0.1:9090/x".parse().unwrap();
        assert_eq!(without_password(&url).as_str(), "http://127.0.0.1:9090/x");
    }

    #[test]
    fn answer_that_is_none_is_an_error() {
        let refused = parse(br#"{"status":"error","error":"parse error: bad"}"#).unwrap_err();
        assert_eq!(refused.to_string(), "parse error: bad");
        assert!(parse(b"<html>").is_err());
        assert!(parse(&answer(r#"{"metric":{},"value":[1,"many"]}"#)).is_err());
    }
}
