//! Tells when a file may have changed: written in place, renamed over, deleted and created again.

use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Changes of one file.
#[derive(Debug)]
pub(super) struct Changes {
    file: PathBuf,
    watcher: Option<RecommendedWatcher>,
    /// One place: what matters is that something happened, not how often.
    happened: mpsc::Receiver<()>,
    /// Keeps `happened` open when there is no watcher.
    _open: mpsc::Sender<()>,
}

impl Changes {
    /// Watches the directory, where a renamed or new file shows, and the file itself, where a write to a file
    /// that is a mount point shows: its directory is another one. Without inotify nothing ever happens.
    pub(super) fn watch(path: &Path) -> Self {
        let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let (open, happened) = mpsc::channel(1);
        let mut changes = Self {
            watcher: watcher(&file, open.clone())
                .inspect_err(|error| {
                    tracing::warn!(file = %file.display(), "failed to watch; it is looked at now and then: {error}");
                })
                .ok(),
            file,
            happened,
            _open: open,
        };
        changes.follow();
        changes
    }

    /// The next change; several may be told as one.
    pub(super) async fn next(&mut self) {
        if self.happened.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Watches the file that has the name now: the watch goes with the inode.
    pub(super) fn follow(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            // Both fail when the file is not there, and then the directory tells.
            let _ = watcher.unwatch(&self.file);
            let _ = watcher.watch(&self.file, RecursiveMode::NonRecursive);
        }
    }
}

fn watcher(file: &Path, happened: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let name = file.file_name().map(ToOwned::to_owned);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let concerns = event.is_ok_and(|event| {
            is_change(event.kind) && event.paths.iter().any(|path| path.file_name() == name.as_deref())
        });
        if concerns {
            // Full: a change is told already.
            let _ = happened.try_send(());
        }
    })?;
    if let Some(directory) = file.parent() {
        watcher.watch(directory, RecursiveMode::NonRecursive)?;
    }
    Ok(watcher)
}

/// Whether somebody is done with a change. Not so: reading, which looking at the file would cause again; and
/// writing until the writer closes the file, for taking half a text for the whole would lose the other half.
fn is_change(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Create(_)
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Remove(_)
    )
}
