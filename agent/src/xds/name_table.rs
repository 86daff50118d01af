//! istiod's name table: taken off the stream, published, and cached for an agent after a crash, because Envoy, by whose
//! stream the names come, takes seconds to connect again. The snapshot has it too, for a boot.

mod parse;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::watch;
use tokio::time::sleep;

use istio_api::frame::{Frame, XdsProtocol};

use super::{Context, Options};
use crate::facts::NameTable;
use crate::host::{Host, blocking};

pub(super) use parse::parse;

/// Time between two writes of the cache: istiod sends the whole table with each change of a service.
const BETWEEN_WRITES: Duration = Duration::from_secs(5);

impl Context {
    /// Publishes the table of an agent before this one, and tells whether there was one.
    pub(super) fn restore_names(&self) -> bool {
        let cached = self.cached_names().unwrap_or_else(|error| {
            tracing::warn!("{}: {error:#}", self.options.name_table_cache.display());
            None
        });
        let is_there = cached.is_some();
        self.restore(cached);
        is_there
    }

    /// Publishes the table in the snapshot, unless istiod has given one meanwhile: of a VM that has booted, on which no query is
    /// redirected before Envoy is ready.
    pub(super) async fn restore_names_of_snapshot(self: Arc<Self>) {
        let (file, membership) = (self.snapshot.clone(), self.inputs.membership.borrow().clone());
        let snapshot = blocking(move || match file.load(&membership)? {
            Some(snapshot) => parse(XdsProtocol::Delta, &snapshot.name_table()),
            None => Ok(None),
        });
        let table = snapshot.await.unwrap_or_else(|error| {
            self.report.snapshot_problem(format!("{error:#}"));
            None
        });
        self.restore(table);
    }

    /// Publishes a kept table, unless istiod has given one meanwhile.
    fn restore(&self, table: Option<NameTable>) {
        let Some(table) = table else { return };
        let count = table.names.len();
        let is_first = self.names.send_if_modified(|names| {
            let is_first = names.is_none();
            if is_first {
                *names = Some(Arc::new(table));
            }
            is_first
        });
        if is_first {
            tracing::info!(names = count, "took up the names that were kept");
            self.report.names(count);
        }
    }

    fn cached_names(&self) -> Result<Option<NameTable>> {
        let Options {
            host, name_table_cache, ..
        } = &self.options;
        host.name_table(name_table_cache)
    }

    /// Publishes a name table; a bad one changes nothing, and neither does a response without one. The error is
    /// what istiod is told.
    ///
    /// A large one takes tens of milliseconds: meanwhile the thread that would read it could answer nobody else.
    pub(super) async fn take_names(&self, protocol: XdsProtocol, frame: Frame) -> Result<(), String> {
        let names = self.names.clone();
        let taken = blocking(move || {
            let table = parse(protocol, &frame)?;
            Ok(table.map(|table| publish(&names, table)))
        });
        let count = taken.await.map_err(|error| {
            let error = format!("{error:#}");
            tracing::warn!("refused istiod's name table, the last good one stays: {error}");
            error
        })?;
        if let Some(count) = count {
            self.report.names(count);
        }
        Ok(())
    }
}

/// Publishes a table, unless it is the same as before; tells how many names it has.
fn publish(names: &watch::Sender<Option<Arc<NameTable>>>, table: NameTable) -> usize {
    let count = table.names.len();
    names.send_if_modified(|names| {
        let differs = names.as_deref() != Some(&table);
        if differs {
            *names = Some(Arc::new(table));
        }
        differs
    });
    count
}

/// Writes the newest table that is published to `path`, and then none for a while.
pub(super) async fn write_cache(host: Host, path: PathBuf, mut names: watch::Receiver<Option<Arc<NameTable>>>) {
    while names.changed().await.is_ok() {
        let Some(table) = names.borrow_and_update().clone() else {
            continue;
        };
        let file = path.clone();
        let written = host.blocking(move |host| {
            let text = serde_json::to_string(&*table)?;
            anyhow::ensure!(
                text.len() <= NameTable::MAX_TEXT,
                "they are longer than {} bytes",
                NameTable::MAX_TEXT
            );
            Ok(host.write(&file, &text, 0o600, None)?)
        });
        if let Err(error) = written.await {
            tracing::warn!("failed to keep the names for an agent after a crash: {error:#}");
        }
        sleep(BETWEEN_WRITES).await;
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::facts::NameInfo;
    use crate::host::System;

    fn table_of(name: &str) -> Option<Arc<NameTable>> {
        let info = NameInfo {
            ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()],
            ..NameInfo::default()
        };
        Some(Arc::new(NameTable {
            names: [(name.to_owned(), info)].into(),
        }))
    }

    #[tokio::test(start_paused = true)]
    async fn name_table_cache_has_the_newest_table_and_is_not_written_for_each() {
        let root = tempfile::tempdir().unwrap();
        let (host, path) = (Host::new(root.path(), System), Path::new("/names.json"));
        let kept = || serde_json::from_str(&host.text(path)).map(Arc::new).ok();
        let publish = watch::Sender::new(None);
        let cache = write_cache(host.clone(), path.to_owned(), publish.subscribe());
        let tables = async {
            publish.send_replace(table_of("first.example"));
            sleep(BETWEEN_WRITES / 2).await;
            assert_eq!(kept(), table_of("first.example"));
            publish.send_replace(table_of("second.example"));
            sleep(BETWEEN_WRITES / 4).await;
            assert_eq!(kept(), table_of("first.example"));
            publish.send_replace(table_of("third.example"));
            drop(publish);
        };
        tokio::join!(cache, tables);
        assert_eq!(kept(), table_of("third.example"));
    }
}
