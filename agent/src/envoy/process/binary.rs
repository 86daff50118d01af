//! The identity of a program's file.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::Host;

/// The identity of a program's file, which tells it from the one that an upgrade put in its place.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Binary {
    device: u64,
    inode: u64,
    modified: (i64, i64),
}

impl Binary {
    /// The identity of the program that is at `path` now; a running process's path is /proc/PID/exe.
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let meta = Host::system().target_meta(path)?.ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}
