//! Files that may be large, special, or not for everybody: read with bounds, and for somebody.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use super::{Host, Owner};

/// Permission bits of one class (owner, group or others).
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

impl Host {
    /// Reads a regular text file of at most `max` bytes; `None` when there is none.
    pub fn read_bounded(&self, path: &Path, max: usize) -> io::Result<Option<String>> {
        match open(&self.at(path)) {
            Ok((file, _)) => read(&file, max).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
        .map_err(|error| named(path, error))
    }

    /// Reads a secret: as [`Host::read_bounded`], and only when its mode keeps it from everybody but its owner.
    pub fn read_secret(&self, path: &Path, max: usize) -> io::Result<Option<String>> {
        match open(&self.at(path)).and_then(|(file, meta)| private(&meta).and_then(|()| read(&file, max))) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(path, error)),
        }
    }

    /// Reads a regular text file of at most `max` bytes for `reader`: only what that user may read by itself,
    /// so that asking for it gains nobody anything. Supplementary groups and ACLs don't count.
    pub fn read_for(&self, path: &Path, reader: Owner, max: usize) -> io::Result<String> {
        self.open_for(path, reader)
            .and_then(|file| read(&file, max))
            .map_err(|error| named(path, error))
    }

    fn open_for(&self, path: &Path, reader: Owner) -> io::Result<File> {
        let (file, meta) = open(&self.at(path))?;
        // Where the open file really is, whatever links led to it and have been turned since.
        let place = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
        let mut directories = place.ancestors().skip(1);
        let reachable = directories
            .all(|directory| fs::metadata(directory).is_ok_and(|directory| permits(&directory, reader, SEARCH)));
        if reachable && permits(&meta, reader, READ) {
            return Ok(file);
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("user {} may not read it", reader.uid),
        ))
    }
}

fn open(path: &Path) -> io::Result<(File, Metadata)> {
    // A FIFO must not make us wait for its writer.
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).unwrap_or_default();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() {
        return Err(io::Error::other("is not a regular file"));
    }
    Ok((file, meta))
}

fn read(file: &File, max: usize) -> io::Result<String> {
    let mut text = String::new();
    file.take(max as u64 + 1).read_to_string(&mut text)?;
    if text.len() > max {
        return Err(io::Error::other(format!("is longer than {max} bytes")));
    }
    Ok(text)
}

fn private(meta: &Metadata) -> io::Result<()> {
    let mode = meta.mode() & 0o7777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let problem = format!("others may open it (mode {mode:04o}): chmod 0600");
    Err(io::Error::new(io::ErrorKind::PermissionDenied, problem))
}

/// Whether the mode gives `reader` this permission.
fn permits(meta: &Metadata, reader: Owner, permission: u32) -> bool {
    let class = match reader {
        Owner { uid: 0, .. } => return true,
        Owner { uid, .. } if uid == meta.uid() => 6,
        Owner { gid, .. } if gid == meta.gid() => 3,
        _ => 0,
    };
    meta.mode() >> class & permission != 0
}

fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::host::System;

    const STRANGER: Owner = Owner {
        uid: 54_321,
        gid: 54_321,
    };

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        host.write(Path::new("/file"), "text", 0o644, None).unwrap();
        (root, host)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_long_or_special_file_is_refused_and_a_missing_one_is_none() {
        let (_root, host) = host();
        assert_eq!(
            host.read_bounded(Path::new("/file"), 4).unwrap().as_deref(),
            Some("text")
        );
        assert_eq!(host.read_bounded(Path::new("/none"), 4).unwrap(), None);
        let long = host.read_bounded(Path::new("/file"), 3).unwrap_err();
        assert_eq!(long.to_string(), "/file: is longer than 3 bytes");
        let directory = host.read_bounded(Path::new("/"), 3).unwrap_err();
        assert_eq!(directory.to_string(), "/: is not a regular file");
    }

    #[test]
    fn a_secret_is_read_only_when_it_is_one() {
        let (root, host) = host();
        let read = || host.read_secret(Path::new("/file"), 9);
        let error = read().unwrap_err().to_string();
        assert_eq!(error, "/file: others may open it (mode 0644): chmod 0600");
        chmod(&root.path().join("file"), 0o600);
        assert_eq!(read().unwrap().as_deref(), Some("text"));
        assert_eq!(host.read_secret(Path::new("/none"), 9).unwrap(), None);
    }

    #[test]
    fn a_file_is_read_for_a_user_only_when_the_user_could() {
        let (root, host) = host();
        let read = || host.read_for(Path::new("/file"), STRANGER, 9);
        chmod(root.path(), 0o755);
        assert_eq!(read().unwrap(), "text");
        chmod(root.path(), 0o700);
        assert_eq!(read().unwrap_err().to_string(), "/file: user 54321 may not read it");
        chmod(root.path(), 0o755);
        chmod(&root.path().join("file"), 0o640);
        read().unwrap_err();
        let meta = fs::metadata(root.path()).unwrap();
        let mine = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        assert_eq!(host.read_for(Path::new("/file"), mine, 9).unwrap(), "text");
    }
}
