//! The record of an upgrade, in the state directory, where it outlives a power cut.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::judge::Readiness;
use crate::config::PathsConfig;
use crate::facts::{Upgrade, UpgradeState};
use crate::host::{Host, Read};

/// The longest record, in bytes: two versions and an agent's last words.
const MAX_BYTES: usize = 64 << 10;
/// The kernel's name of this boot (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// An upgrade, and what its judge has to know after a reboot.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(super) struct Record {
    #[serde(flatten)]
    pub(super) upgrade: Upgrade,
    /// State that the version before had reached.
    pub(super) before: Readiness,
    /// SHA-256 of the configuration that it did so with; absent where there was no file, and in a record of an earlier version.
    #[serde(default)]
    pub(super) configuration: Option<String>,
    /// The kernel's name of the last boot in which the trial was watched; absent before the first. Only the watching unit asks:
    /// in a container its own /proc may have another name than that of a shell.
    pub(super) boot: Option<String>,
    /// The number of boots in which the trial was watched, but for the first.
    pub(super) reboots: u32,
}

impl Record {
    /// Puts the upgrade into another state, for a reason.
    pub(super) fn becomes(&mut self, state: UpgradeState) {
        (self.upgrade.state, self.upgrade.since) = (state, SystemTime::now());
    }
}

/// The place of the record.
#[derive(Clone, Debug)]
pub(super) struct RecordFile {
    host: Host,
    path: PathBuf,
}

impl RecordFile {
    pub(super) fn new(host: &Host, paths: &PathsConfig) -> Self {
        Self {
            host: host.clone(),
            path: paths.upgrade(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The record; `None` where no upgrade is under way, and none was taken back.
    ///
    /// # Errors
    /// When it can't be read, or is none.
    pub(super) fn load(&self) -> Result<Option<Record>> {
        let Some(text) = self.host.read(&self.path, Read::max(MAX_BYTES))? else {
            return Ok(None);
        };
        let record = serde_json::from_str(&text);
        record
            .map(Some)
            .with_context(|| format!("{}: is no record of an upgrade", self.path.display()))
    }

    /// Writes the record, whole or not at all; it is on the disk then.
    pub(super) fn save(&self, record: &Record) -> Result<()> {
        let text = serde_json::to_string_pretty(record)? + "\n";
        self.host
            .write(&self.path, &text, 0o600, None)
            .context("failed to write down how far the upgrade is")
    }

    pub(super) fn remove(&self) -> std::io::Result<()> {
        self.host.remove(&self.path)
    }
}

/// The kernel's name of this boot.
pub(super) fn boot_id(host: &Host) -> Result<String> {
    let text = host.read(Path::new(BOOT_ID), Read::max(64))?;
    Ok(text.with_context(|| format!("{BOOT_ID} is missing"))?.trim().to_owned())
}
