//! Envoy's program from a URL.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Response;

use super::unpack::MAX_PROGRAM_BYTES;
use crate::host::{Host, Read, Staged};
use crate::web::{Client, Patience, Trust};

/// The longest wait for a connection, and for each piece of the answer.
const TIMEOUTS: Patience = Patience {
    connect: Duration::from_secs(10),
    exchange: Duration::from_secs(30),
};
/// The longest file of roots, in bytes: one with every certificate authority of the world is a quarter of it.
const MAX_ROOTS_BYTES: usize = 1 << 20;

/// Saves the file at `url`.
pub(super) async fn save(host: &Host, url: &str, ca_file: Option<&Path>, into: &mut Staged) -> Result<()> {
    let client = client(host, ca_file)?;
    let mut response = judged(client.start(client.get(url)).await?)?;
    while let Some(piece) = client.piece(&mut response).await? {
        into.write_all(&piece)?;
    }
    Ok(())
}

/// Asks whether there is something at `url`, without getting it.
pub(super) async fn ask(host: &Host, url: &str, ca_file: Option<&Path>) -> Result<()> {
    let client = client(host, ca_file)?;
    judged(client.start(client.head(url)).await?).map(drop)
}

fn judged(response: Response) -> Result<Response> {
    let status = response.status();
    ensure!(status.is_success(), "it answers {status}: check envoy.url");
    let length = response.content_length().unwrap_or_default();
    ensure!(
        length <= MAX_PROGRAM_BYTES,
        "it is longer than {MAX_PROGRAM_BYTES} bytes"
    );
    Ok(response)
}

fn client(host: &Host, ca_file: Option<&Path>) -> Result<Client> {
    let trust = match ca_file {
        None => Trust::System,
        Some(path) => Trust::Roots {
            pem: host
                .read(path, Read::max(MAX_ROOTS_BYTES).following_links())
                .context("failed to read envoy.ca_file")?
                .with_context(|| format!("envoy.ca_file, {}, is missing", path.display()))?,
            place: format!("envoy.ca_file, {}", path.display()),
        },
    };
    Client::roaming(trust, TIMEOUTS)
}
