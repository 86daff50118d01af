//! Files: written atomically, moved, removed.

use std::fs::{self, DirBuilder, Metadata, OpenOptions};
use std::io::ErrorKind::{PermissionDenied, ResourceBusy};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statvfs::{FsFlags, statvfs};
use nix::unistd::{AccessFlags, faccessat};

use super::{Host, Owner, atomic};

impl Host {
    /// Writes a file of the given mode, whole or not at all: temporary file beside it, fsync, rename, fsync
    /// of the directory. `owner` absent: the caller's.
    pub fn write(&self, path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> io::Result<()> {
        atomic::write(&self.at(path), text.as_bytes(), mode, owner).map_err(|error| named(path, error))
    }

    /// Writes a file of the run directory, which nobody reads after a boot: as [`Host::write`] does, and waits for no disk.
    pub fn write_until_reboot(&self, path: &Path, text: &str, mode: u32, owner: Option<Owner>) -> io::Result<()> {
        atomic::write_until_reboot(&self.at(path), text.as_bytes(), mode, owner).map_err(|error| named(path, error))
    }

    /// Writes a file that is no text, as [`Host::write`] does; it is the caller's.
    pub fn write_bytes(&self, path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        atomic::write(&self.at(path), content, mode, None).map_err(|error| named(path, error))
    }

    /// Replaces the content of a file that is there; its mode and owner stay. A file that can't be renamed
    /// over because it is a mount point (containers mount /etc/hosts), or whose owner can't be given to another
    /// file, is rewritten in place.
    pub fn rewrite(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        // Through a link to its target: renaming over the link would replace the link itself.
        let target = fs::canonicalize(self.at(path)).map_err(|error| named(path, error))?;
        let meta = fs::metadata(&target).map_err(|error| named(path, error))?;
        let owner = Owner {
            uid: meta.uid(),
            gid: meta.gid(),
        };
        match atomic::write(&target, content, meta.mode() & 0o7777, Some(owner)) {
            Err(error) if matches!(error.kind(), ResourceBusy | PermissionDenied) => write_in_place(&target, content),
            done => done,
        }
        .map_err(|error| named(path, error))
    }

    /// Looks whether the file at `path` could be written, or made where there is none.
    ///
    /// # Errors
    /// When it is immutable, its file system read-only, or this process may not.
    pub fn expect_writable(&self, path: &Path) -> io::Result<()> {
        let place = match self.target_meta(path)? {
            Some(_) => path,
            None => path.parent().unwrap_or(path),
        };
        nix::unistd::access(&self.at(place), AccessFlags::W_OK).map_err(|errno| named(place, errno.into()))
    }

    /// Tells whether this process's user may not do that with what is at `path`, or not even see whether it is there.
    pub fn is_denied(&self, path: &Path, access: AccessFlags) -> bool {
        faccessat(AT_FDCWD, &self.at(path), access, AtFlags::AT_EACCESS) == Err(Errno::EACCES)
    }

    /// `path` without the links in it; the path itself where it is not there. Blocks.
    pub fn resolved(&self, path: &Path) -> PathBuf {
        let real = |path: &Path| fs::canonicalize(path).ok();
        let (Some(at), Some(root)) = (real(&self.at(path)), real(&self.root)) else {
            return path.to_owned();
        };
        at.strip_prefix(root)
            .map_or_else(|_| at.clone(), |inside| Path::new("/").join(inside))
    }

    /// Bytes that root may still write in the file system of `path`, or of the first folder above that is there; none where
    /// it can have no more files.
    pub fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        let there = path.ancestors().find(|path| self.exists(path)).unwrap_or(path);
        let stat = statvfs(&self.at(there)).map_err(|errno| named(there, errno.into()))?;
        match stat.files() > 0 && stat.files_free() == 0 {
            true => Ok(0),
            false => Ok(stat.blocks_free().saturating_mul(stat.fragment_size())),
        }
    }

    /// True where no program runs from the file system of `path`, or of the first folder above that is there (`noexec`).
    pub fn runs_no_programs(&self, path: &Path) -> bool {
        let there = path.ancestors().find(|path| self.exists(path)).unwrap_or(path);
        statvfs(&self.at(there)).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC))
    }

    /// Metadata of the file at `path`, of a link itself; `None` when there is nothing.
    pub fn meta(&self, path: &Path) -> io::Result<Option<Metadata>> {
        match fs::symlink_metadata(self.at(path)) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(path, error)),
        }
    }

    /// Metadata of the file at `path`, behind links; `None` when there is nothing.
    pub fn target_meta(&self, path: &Path) -> io::Result<Option<Metadata>> {
        match fs::metadata(self.at(path)) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(named(path, error)),
        }
    }

    /// Tells whether there is something at `path`, behind links too.
    pub fn exists(&self, path: &Path) -> bool {
        matches!(self.target_meta(path), Ok(Some(_)))
    }

    /// The names in a directory that are text, in no order; none when there is no such directory.
    pub fn names_in(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.at(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(named(directory, error)),
        };
        Ok(entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect())
    }

    /// Removes a file; one that is gone already is fine.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(self.at(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path, error)),
            _ => Ok(()),
        }
    }

    /// Gives a file another name in the same file system, over what had it.
    pub fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(self.at(from), self.at(to)).map_err(|error| named(from, error))
    }

    /// Gives the file at `from` a further name in the same file system, `to`, over what had it, whole or not at all.
    pub fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        atomic::link(&self.at(from), &self.at(to)).map_err(|error| named(from, error))
    }

    /// Makes a directory and its parents, and gives the last one this mode and owner where it has others.
    pub fn make_directory(&self, path: &Path, mode: u32, owner: Option<Owner>) -> io::Result<()> {
        let at = self.at(path);
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&at)
            .map_err(|error| named(path, error))?;
        let directory = fs::File::open(&at).map_err(|error| named(path, error))?;
        let there = directory.metadata().map_err(|error| named(path, error))?;
        if there.mode() & 0o7777 != mode {
            directory
                .set_permissions(fs::Permissions::from_mode(mode))
                .map_err(|error| named(path, error))?;
        }
        owner
            .map_or(Ok(()), |owner| atomic::give(&directory, owner))
            .map_err(|error| named(path, error))
    }

    /// Removes a directory that is there and empty.
    pub fn remove_empty_directory(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir(self.at(path)) {
            Err(error) if ![io::ErrorKind::NotFound, io::ErrorKind::DirectoryNotEmpty].contains(&error.kind()) => {
                Err(named(path, error))
            }
            _ => Ok(()),
        }
    }

    /// Removes a directory and all in it, following no link; one that is gone already is fine.
    pub fn remove_directory(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(self.at(path)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(path, error)),
            _ => Ok(()),
        }
    }

    /// Where `path` really is, for calls that take a path themselves (sockets, FIFOs).
    pub fn real_path(&self, path: &Path) -> PathBuf {
        self.at(path)
    }
}

/// An `io::Error` doesn't say which file it is about.
pub(super) fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn write_in_place(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        (root, host)
    }

    #[test]
    fn write_leaves_the_file_and_nothing_else() {
        for write in [Host::write, Host::write_until_reboot] {
            let (root, host) = host();
            write(&host, Path::new("/key"), "secret", 0o600, None).unwrap();
            assert_eq!(host.text(Path::new("/key")), "secret");
            assert_eq!(fs::metadata(root.path().join("key")).unwrap().mode() & 0o7777, 0o600);
            assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn rewrite_keeps_the_mode_and_follows_a_link() {
        let (root, host) = host();
        host.write(Path::new("/real"), "old", 0o604, None).unwrap();
        std::os::unix::fs::symlink("real", root.path().join("link")).unwrap();
        host.rewrite(Path::new("/link"), b"new").unwrap();
        assert_eq!(host.text(Path::new("/real")), "new");
        assert_eq!(fs::metadata(root.path().join("real")).unwrap().mode() & 0o7777, 0o604);
        assert!(root.path().join("link").is_symlink());
    }

    #[test]
    fn errors_name_the_file() {
        let (_root, host) = host();
        assert!(
            host.rename(Path::new("/no"), Path::new("/other"))
                .unwrap_err()
                .to_string()
                .starts_with("/no: ")
        );
        assert_eq!(
            host.write(Path::new("/no/no"), "", 0o600, None)
                .unwrap_err()
                .to_string(),
            "/no/no: No such file or directory (os error 2)"
        );
    }
}
