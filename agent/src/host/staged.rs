//! A large file: written piece by piece beside its place, hashed on the way, and put there once it is whole.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{Context, SHA256};
use tempfile::NamedTempFile;

use super::file::named;
use super::{Host, Read as How, atomic};

/// Bytes that are read at once.
const CHUNK: usize = 1 << 20;

/// A file that is not in its place yet. Dropped, it leaves nothing.
pub struct Staged {
    file: NamedTempFile,
    place: PathBuf,
    digest: Context,
    length: u64,
    longest: u64,
}

impl std::fmt::Debug for Staged {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Staged")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

impl Host {
    /// Begins a file of at most `longest` bytes that will be `path`, in a directory that is there.
    pub fn stage(&self, path: &Path, longest: u64) -> io::Result<Staged> {
        let place = self.at(path);
        Ok(Staged {
            file: atomic::beside(&place).map_err(|error| named(path, error))?,
            place,
            digest: Context::new(&SHA256),
            length: 0,
            longest,
        })
    }

    /// SHA-256 of a file, lower-case hex; `None` when there is none. Blocks for as long as reading takes.
    pub fn sha256(&self, path: &Path) -> io::Result<Option<String>> {
        let Some(file) = self
            .open(path, How::max(usize::MAX).following_links())
            .map_err(io::Error::other)?
        else {
            return Ok(None);
        };
        let mut file = file.into_file();
        let (mut digest, mut chunk) = (Context::new(&SHA256), vec![0; CHUNK]);
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(Some(hex::encode(digest.finish()))),
                Ok(count) => digest.update(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(named(path, error)),
            }
        }
    }
}

impl Staged {
    /// SHA-256 of what has been written so far, lower-case hex.
    pub fn sha256(&self) -> String {
        hex::encode(self.digest.clone().finish())
    }

    /// The bytes written so far, from the beginning; nothing may be written after.
    pub fn reader(&mut self) -> io::Result<&mut File> {
        self.file.rewind()?;
        Ok(self.file.as_file_mut())
    }

    /// Puts the file in its place with this mode, over what is there.
    pub fn place(self, mode: u32) -> io::Result<()> {
        atomic::put(self.file, &self.place, mode, None)
    }
}

impl Write for Staged {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.length + bytes.len() as u64;
        if length > self.longest {
            return Err(io::Error::other(format!("it is longer than {} bytes", self.longest)));
        }
        let count = self.file.write(bytes)?;
        self.digest.update(&bytes[..count]);
        self.length += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::host::System;

    /// SHA-256 of "whole" (`printf whole | sha256sum`).
    const WHOLE: &str = "5d5766cf2d78701614200418ee1450690d9af12c84d52545e4802f001ad53099";

    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        (root, host)
    }

    #[test]
    fn staged_file_is_in_its_place_when_it_is_whole_and_not_before() {
        let (root, host) = host();
        let place = Path::new("/f");
        let mut staged = host.stage(place, 5).unwrap();
        staged.write_all(b"who").unwrap();
        staged.write_all(b"le").unwrap();
        assert!(!root.path().join("f").exists());
        assert_eq!(staged.sha256(), WHOLE);
        let mut text = String::new();
        staged.reader().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "whole");
        staged.place(0o751).unwrap();
        assert_eq!(host.sha256(place).unwrap().as_deref(), Some(WHOLE));
        assert_eq!(fs::metadata(root.path().join("f")).unwrap().mode() & 0o7777, 0o751);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 1);
    }

    #[test]
    fn staged_file_that_is_too_long_or_given_up_leaves_nothing() {
        let (root, host) = host();
        let mut staged = host.stage(Path::new("/f"), 4).unwrap();
        let error = staged.write_all(b"whole").unwrap_err().to_string();
        assert_eq!(error, "it is longer than 4 bytes");
        drop(staged);
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        assert_eq!(host.sha256(Path::new("/f")).unwrap(), None);
    }
}
