//! The applications that count for the health of the VM. At its start all do; one that a reload adds does from its first
//! success on, so that it takes no call from those that are well.
//!
//! Their names are in a file of the run directory once all have been well, or nobody says how they are: what is not in there is
//! new to the next agent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::host::{Host, Read};

/// Longest file, in bytes.
const MAX: usize = 64 << 10;

/// The file, and what is in it.
#[derive(Debug)]
pub(super) struct Counted {
    host: Host,
    file: PathBuf,
    /// Absent: the VM has not been well yet.
    names: Option<BTreeSet<String>>,
}

impl Counted {
    /// One that can't be read is told, and is taken for none.
    pub(super) async fn read(host: Host, file: PathBuf) -> Self {
        let path = file.clone();
        let read = host.blocking(move |host| {
            let text = host.read(&path, Read::max(MAX))?;
            let names = text.map(|text| serde_json::from_str(&text));
            names
                .transpose()
                .with_context(|| format!("{} is damaged", path.display()))
        });
        let names = read.await.unwrap_or_else(|error| {
            tracing::warn!("all applications count for the VM's health, as at its start: {error:#}");
            None
        });
        Self { host, file, names }
    }

    /// True where the VM was well before this agent.
    pub(super) fn resumes(&self) -> bool {
        self.names.is_some()
    }

    /// The `names` that were added; none where no other stays that could go on in the meantime. `is_asked`: the VM is as a
    /// whole, and so stays.
    pub(super) fn added<'a>(&self, names: &[&'a str], is_asked: bool) -> BTreeSet<&'a str> {
        let Some(counted) = &self.names else {
            return BTreeSet::new();
        };
        let added: BTreeSet<_> = names.iter().copied().filter(|name| !counted.contains(*name)).collect();
        match is_asked || added.len() < names.len() {
            true => added,
            false => BTreeSet::new(),
        }
    }

    /// Keeps the names of those that count while the VM is well.
    pub(super) async fn keep(&mut self, names: BTreeSet<String>) {
        if self.names.as_ref() == Some(&names) {
            return;
        }
        let (path, kept) = (self.file.clone(), names.clone());
        let written = self.host.blocking(move |host| {
            let text = serde_json::to_string(&kept)?;
            Ok(host.write_until_reboot(&path, &text, 0o600, None)?)
        });
        match written.await {
            Ok(()) => self.names = Some(names),
            Err(error) => tracing::warn!("after the next reload all applications count for the VM's health: {error:#}"),
        }
    }

    /// The VM leaves.
    pub(super) async fn forget(self) -> Result<()> {
        let Self { host, file, .. } = self;
        host.blocking(move |host| Ok(host.remove(&file)?)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    #[tokio::test]
    async fn application_is_added_once_the_others_have_been_well() {
        let root = tempfile::tempdir().unwrap();
        let read = || Counted::read(Host::new(root.path(), System), "/counted.json".into());
        let mut counted = read().await;
        assert!(counted.added(&["web", "cache"], false).is_empty());
        counted.keep(["web".to_owned()].into()).await;
        let counted = read().await;
        assert_eq!(counted.added(&["web", "cache"], false), ["cache"].into());
        assert!(counted.added(&["cache"], false).is_empty());
        assert_eq!(counted.added(&["cache"], true), ["cache"].into());
        counted.forget().await.unwrap();
        assert!(read().await.added(&["web", "cache"], false).is_empty());
        std::fs::write(root.path().join("counted.json"), "{").unwrap();
        assert!(read().await.added(&["web", "cache"], true).is_empty());
    }
}
