//! Tells when a file, or any file of a directory, may have changed: written in place, renamed over, deleted and
//! created again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use notify::event::{AccessKind, AccessMode, ModifyKind};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Changes of one file, or of a directory's files.
#[derive(Debug)]
pub struct Changes {
    /// Absent: the whole directory.
    file: Option<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    /// One place: what matters is that something happened, not how often.
    happened: mpsc::Receiver<()>,
    /// Keeps `happened` open when there is no watcher.
    _open: mpsc::Sender<()>,
}

impl Changes {
    /// Watches the directory, where a renamed or new file shows, and the file itself, where a write to a file
    /// that is a mount point shows: its directory is another one. Without inotify nothing ever happens.
    pub fn of_file(path: &Path) -> Self {
        let file = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = file.parent().map(Path::to_owned).unwrap_or_default();
        let mut changes = Self::new(&directory, Some(file));
        changes.follow();
        changes
    }

    /// Watches the directory that has this path now.
    pub fn in_directory(path: &Path) -> Self {
        Self::new(path, None)
    }

    fn new(directory: &Path, file: Option<PathBuf>) -> Self {
        let (open, happened) = mpsc::channel(1);
        let name = file.as_deref().and_then(Path::file_name).map(ToOwned::to_owned);
        let watcher = watcher(directory, name, open.clone()).inspect_err(|error| {
            let path = file.as_deref().unwrap_or(directory).display();
            tracing::warn!(file = %path, "failed to watch; it is looked at now and then: {error}");
        });
        Self {
            file,
            watcher: watcher.ok(),
            happened,
            _open: open,
        }
    }

    /// The next change; several may be told as one.
    pub async fn next(&mut self) {
        if self.happened.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Watches the file that has the name now: the watch goes with the inode.
    pub fn follow(&mut self) {
        if let (Some(watcher), Some(file)) = (&mut self.watcher, &self.file) {
            // Both fail when the file is not there, and then the directory tells.
            let _ = watcher.unwatch(file);
            let _ = watcher.watch(file, RecursiveMode::NonRecursive);
        }
    }
}

fn watcher(directory: &Path, name: Option<OsString>, happened: mpsc::Sender<()>) -> notify::Result<RecommendedWatcher> {
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let concerns = event.is_ok_and(|event| {
            let named = |path: &PathBuf| name.is_none() || path.file_name() == name.as_deref();
            is_change(event.kind) && event.paths.iter().any(named)
        });
        if concerns {
            // Full: a change is told already.
            let _ = happened.try_send(());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

/// Tells whether somebody is done with a change. Not so: reading, which looking at the file would cause again; and
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
