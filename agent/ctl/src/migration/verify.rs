//! The calls by which VM and pods are compared.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

use super::names::{self, Text};

/// Where both sides are asked, and what.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Verify {
    /// `host:port` at which the VM answers without TLS; absent: what its WorkloadEntry says.
    pub(crate) vm: Option<Text>,
    /// `host:port` at which a pod answers without TLS; absent: what an EndpointSlice says.
    pub(crate) pods: Option<Text>,
    /// Headers of answers that must be equal.
    #[serde(default)]
    pub(crate) headers: Vec<Text>,
    /// Times that each call is made on each side, at least two.
    #[serde(default = "repeat")]
    pub(crate) repeat: u32,
    /// The most that the pods' median time may be of the VM's, once it is longer by `latency_slack`.
    #[serde(default = "latency_ratio")]
    pub(crate) latency_ratio: f64,
    /// The time by which pods may always be slower.
    #[serde(default = "latency_slack", deserialize_with = "names::duration")]
    pub(crate) latency_slack: Duration,
    /// The time for one answer.
    #[serde(default = "timeout", deserialize_with = "names::duration")]
    pub(crate) timeout: Duration,
    /// Calls that change nothing: each is made on both sides.
    pub(crate) calls: Vec<Call>,
}

/// One call: of gRPC, or of HTTP.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    /// The path of a unary method of gRPC, `/package.Service/Method`.
    pub(crate) grpc: Option<Text>,
    /// The request of `grpc`, as protobuf encodes it; in the file as hexadecimal digits.
    #[serde(default, deserialize_with = "hexadecimal")]
    pub(crate) message: Vec<u8>,
    /// A path of HTTP, with its query.
    pub(crate) http: Option<Text>,
    /// The method of HTTP.
    #[serde(default = "get")]
    pub(crate) method: Text,
    /// The body of a request of HTTP, which is JSON.
    pub(crate) json: Option<String>,
    /// Compare the status, the headers and the time alone.
    #[serde(default)]
    pub(crate) ignore_body: bool,
}

impl Verify {
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if self.calls.is_empty() {
            problems.push("verify.calls: name at least one".to_owned());
        }
        if self.repeat < 2 {
            problems
                .push("verify.repeat: at least 2, so that what the VM itself answers differently is known".to_owned());
        }
        if !(1.0..=1000.0).contains(&self.latency_ratio) {
            problems.push(format!(
                "verify.latency_ratio: {} is not between 1 and 1000",
                self.latency_ratio
            ));
        }
        for (at, call) in self.calls.iter().enumerate() {
            let ((Some(path), None) | (None, Some(path))) = (&call.grpc, &call.http) else {
                problems.push(format!("verify.calls[{at}]: give either grpc or http"));
                continue;
            };
            if !path.as_str().starts_with('/') {
                problems.push(format!("verify.calls[{at}]: {path} is no path: it begins with /"));
            }
            if call.grpc.is_some() && call.json.is_some() || call.http.is_some() && !call.message.is_empty() {
                problems.push(format!("verify.calls[{at}]: message is for grpc, and json for http"));
            }
        }
        problems
    }
}

impl Call {
    /// The call's name in what is printed.
    pub(crate) fn name(&self) -> String {
        match (&self.grpc, &self.http) {
            (Some(path), _) => path.to_string(),
            (None, Some(path)) => format!("{} {path}", self.method),
            (None, None) => String::new(),
        }
    }
}

fn hexadecimal<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(&text).map_err(|error| de::Error::custom(format!("{text:?} is not hexadecimal: {error}")))
}

fn get() -> Text {
    Text::known("GET")
}

fn repeat() -> u32 {
    5
}

fn latency_ratio() -> f64 {
    2.0
}

fn latency_slack() -> Duration {
    Duration::from_millis(50)
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}
