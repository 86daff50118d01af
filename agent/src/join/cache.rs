//! The bundle that a remote source gave last, on disk: a reboot without the source serves from it. Never holds a token.

mod v1;

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde::{Deserialize, Serialize};

use super::bundle::Bundle;
use crate::facts::HostEvent;
use crate::host::{Host, Machine, Read};

/// The format that this agent writes. It also reads version 1, in which the bundle was files.
const VERSION: u32 = 2;
/// Four files of a mebibyte at most, with room for JSON's escapes.
const MAX_BYTES: usize = 16 << 20;

/// The fields of every version.
#[derive(Deserialize, Serialize)]
struct Header {
    version: u32,
    /// The source that gave the bundle: another source's is of no use.
    source: String,
    /// The machine that it was given to; absent: by an agent that made no mark.
    #[serde(default)]
    machine: Option<Machine>,
}

#[derive(Deserialize)]
struct Body {
    bundle: Bundle,
}

#[derive(Serialize)]
struct Cached<'a> {
    #[serde(flatten)]
    header: Header,
    bundle: &'a Bundle,
}

/// The bundle that `source` gave last; `None` when none is there. Files of version 1 are parsed, after their signature
/// where
/// `public_key` wants one. An error says why it can't be used.
pub(super) fn load(host: &Host, path: &Path, source: &str, public_key: Option<&str>) -> Result<Option<Bundle>> {
    let Some(text) = host.read(path, Read::max(MAX_BYTES))? else {
        return Ok(None);
    };
    parse(&text, path, source, public_key, &host.machine())
}

/// Reads the file's text, as [`load`].
pub(super) fn parse(
    text: &str,
    path: &Path,
    source: &str,
    public_key: Option<&str>,
    here: &Machine,
) -> Result<Option<Bundle>> {
    let place = path.display();
    let damaged = |error: serde_json::Error| anyhow!("{place} is damaged: {error}");
    let header: Header = serde_json::from_str(text).map_err(damaged)?;
    ensure!(
        (1..=VERSION).contains(&header.version),
        "{place} is of version {}, this agent reads 1 to {VERSION}",
        header.version
    );
    if header.machine.is_some_and(|of| here.is_another_than(&of)) {
        let code = HostEvent::MachineChanged.code();
        tracing::warn!(
            code,
            "{place} is of another machine, of whose disk this one's is a copy: this VM asks for itself"
        );
        return Ok(None);
    }
    if header.source != source {
        return Ok(None);
    }
    if header.version == 1 {
        let files = v1::parse(text).map_err(damaged)?;
        return Ok(Some(Bundle::parse(&files, public_key)?));
    }
    let Body { bundle } = serde_json::from_str(text).map_err(damaged)?;
    Ok(Some(bundle))
}

/// Writes `bundle`, unless it is there already.
pub(super) fn save(host: &Host, path: &Path, source: &str, bundle: &Bundle) -> Result<()> {
    let text = text(source, Some(host.machine()), bundle).context("failed to encode the membership")?;
    if host.read(path, Read::max(MAX_BYTES)).ok().flatten().as_ref() == Some(&text) {
        return Ok(());
    }
    host.write(path, &text, 0o600, None)
        .with_context(|| format!("failed to keep the membership in {}", path.display()))
}

/// The document of a bundle that `source` gave on `machine`.
pub(super) fn text(source: &str, machine: Option<Machine>, bundle: &Bundle) -> serde_json::Result<String> {
    let header = Header {
        version: VERSION,
        source: source.to_owned(),
        machine,
    };
    serde_json::to_string_pretty(&Cached { header, bundle })
}

#[cfg(test)]
mod tests;
