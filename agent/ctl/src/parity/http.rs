//! One exchange of HTTP.

use anyhow::{Context, Result, ensure};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};

use super::{Answer, Body, MAX_ANSWER};
use crate::migration::Call;
use crate::names::Names;

pub(super) async fn ask(address: &str, path: &str, call: &Call) -> Result<Answer> {
    // The sides are asked, and nobody between or behind them. Without TLS no roots are needed.
    let client = Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([]);
    let client = client.dns_resolver(Names);
    let method: Method = call
        .method
        .as_str()
        .parse()
        .context("verify.calls: no method of HTTP")?;
    let mut request = client.build()?.request(method, format!("http://{address}{path}"));
    if let Some(json) = &call.json {
        request = request.header("content-type", "application/json").body(json.clone());
    }
    let mut response = request.send().await?;
    let headers = response.headers().iter();
    let headers = headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    let (status, headers) = (response.status().as_u16().to_string(), headers.collect());
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        ensure!(body.len() <= MAX_ANSWER, "an answer of more than {MAX_ANSWER} bytes");
    }
    Ok(Answer {
        status,
        headers,
        body: self::body(body),
    })
}

/// JSON where it is some.
pub(super) fn body(bytes: Vec<u8>) -> Body {
    serde_json::from_slice(&bytes).map_or(Body::Bytes(bytes), Body::Json)
}
