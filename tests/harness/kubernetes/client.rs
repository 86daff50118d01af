//! One HTTPS request to the API server, as somebody.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use reqwest::{Certificate, ClientBuilder, Method};
use serde_json::Value;

const DEADLINE: Duration = Duration::from_secs(20);

/// Who asks.
#[derive(Clone, Debug)]
pub enum As {
    /// Nobody.
    Anonymous,
    /// Who has this bearer token.
    Token(String),
}

/// Answer of the API server.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP's.
    pub code: u16,
    /// An object, a Status, or a string.
    pub body: Value,
}

impl Answer {
    /// The body of a 2xx; else an error with the API server's own words.
    pub fn expect_success(self) -> Result<Value> {
        if (200..300).contains(&self.code) {
            return Ok(self.body);
        }
        let said = self.body["message"].as_str().map(str::to_owned);
        bail!("{}: {}", self.code, said.unwrap_or_else(|| self.body.to_string()))
    }
}

pub(super) struct Request<'a> {
    pub(super) url: String,
    pub(super) method: &'a str,
    pub(super) content_type: &'a str,
    /// Null: none.
    pub(super) body: &'a Value,
}

impl Request<'_> {
    /// Sends it from the network namespace of the calling thread, and waits.
    pub(super) fn send(&self, user: &As, ca_pem: &str) -> Result<Answer> {
        // A second call finds the first one's.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let client = ClientBuilder::new()
            .no_proxy()
            .timeout(DEADLINE)
            .tls_certs_only([Certificate::from_pem(ca_pem.as_bytes())?])
            .build()?;
        let mut request = client
            .request(Method::from_bytes(self.method.as_bytes())?, &self.url)
            .header("Content-Type", self.content_type);
        if let As::Token(token) = user {
            request = request.bearer_auth(token);
        }
        if !self.body.is_null() {
            request = request.body(self.body.to_string());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (code, body) = runtime
            .block_on(async {
                let response = request.send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
            })
            .with_context(|| format!("{} {}", self.method, self.url))?;
        Ok(Answer {
            code,
            body: serde_json::from_str(&body).unwrap_or(Value::String(body)),
        })
    }
}
