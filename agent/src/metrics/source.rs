//! One source of metrics on this VM, asked over loopback, in bounded time and size.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use http::{Request, StatusCode, header};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::format::Format;
use super::targets::Target;
use crate::web;

/// Longest time for a source's whole answer; a scrape has 10 s by default, and all sources are asked at once.
const SOURCE_TIMEOUT: Duration = Duration::from_secs(3);

/// The text of a source, and its format.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) text: String,
    pub(super) format: Format,
    /// Where it came from, for messages.
    pub(super) place: String,
}

/// Asks a source for metrics, best in `format`, and reads at most `max` bytes.
pub(super) async fn ask(target: &Target, format: Format, max: usize) -> Result<Answer> {
    timeout(SOURCE_TIMEOUT, exchange(target, format, max))
        .await
        .with_context(|| format!("no whole answer within {SOURCE_TIMEOUT:?}"))
        .flatten()
        .with_context(|| format!("failed to scrape {target}"))
}

async fn exchange(target: &Target, format: Format, max: usize) -> Result<Answer> {
    let request = Request::get(&target.path)
        .header(header::HOST, format!("localhost:{}", target.port))
        .header(header::ACCEPT, format.accept())
        .header(header::USER_AGENT, web::USER_AGENT);
    let answer = web::fetch(connect(target.port).await?, request, max).await?;
    ensure!(answer.status() == StatusCode::OK, "it answered {}", answer.status());
    let kind = answer.headers().get(header::CONTENT_TYPE);
    let kind = kind
        .map(|kind| kind.to_str())
        .transpose()
        .context("its content type is no text")?;
    let format = Format::of_content_type(kind).with_context(|| {
        format!(
            "it answered {}, which is no text of Prometheus",
            kind.unwrap_or_default()
        )
    })?;
    let text = String::from_utf8(answer.into_body().into()).context("its answer is no UTF-8")?;
    let place = target.to_string();
    Ok(Answer { text, format, place })
}

/// Connects to `localhost`, by IPv4 first.
async fn connect(port: u16) -> Result<TcpStream> {
    match TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await {
        Ok(stream) => Ok(stream),
        Err(error) => TcpStream::connect(SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
            .await
            .map_err(|_| error.into()),
    }
}
