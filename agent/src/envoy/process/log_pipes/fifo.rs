//! One FIFO, in a directory that is Envoy's: the agent uses none but its own, and touches nothing else there.

use std::convert::Infallible;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, fchown, geteuid, mkfifo, read};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::line::Lines;
use crate::part::ENVOY_USER;

/// The bytes that a FIFO holds while nobody reads: the most that a process without privileges may ask for (pipe(7)).
const FIFO_BYTES: usize = 1 << 20;
/// The bytes that are read at once.
const READ_BYTES: usize = 64 << 10;
/// The pause after a FIFO's worth: a flood may cost a part of a core and no more.
const FLOOD_PAUSE: Duration = Duration::from_millis(10);
/// The number of times that something in the FIFO's place is taken away.
const MAX_TRIES: usize = 3;

/// One FIFO, and the part of its last line that has been read.
#[derive(Debug)]
pub(super) struct Fifo {
    pub(super) fd: AsyncFd<OwnedFd>,
    lines: Mutex<Lines>,
}

impl Fifo {
    #[expect(
        deprecated,
        reason = "deprecated for types that may change their fd; its successor is `unsafe`, and OwnedFd can't"
    )]
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let fd = find(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        let size = i32::try_from(FIFO_BYTES).unwrap_or(i32::MAX);
        if let Err(error) = fcntl(&fd, FcntlArg::F_SETPIPE_SZ(size)) {
            tracing::debug!("failed to enlarge {}: {error}", path.display());
        }
        Ok(Self {
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
            lines: Mutex::default(),
        })
    }

    /// Hands each line on, until dropped.
    pub(super) async fn pump(&self, line: impl Fn(&str)) -> Infallible {
        loop {
            match self.fd.readable().await {
                Ok(mut readable) => {
                    if self.take_available(&line) {
                        readable.clear_ready();
                    } else {
                        // There is more: others first.
                        tokio::time::sleep(FLOOD_PAUSE).await;
                    }
                }
                // An error means that the runtime is shutting down.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Reads at most a FIFO's worth; true when it is empty now.
    pub(super) fn take_available(&self, line: &impl Fn(&str)) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = vec![0; READ_BYTES];
        for _ in 0..FIFO_BYTES / READ_BYTES {
            match read(self.fd.get_ref(), &mut chunk) {
                Ok(count @ 1..) => lines.push(&chunk[..count], line),
                Err(Errno::EINTR) => {}
                // Empty, as EAGAIN says. End of file and errors can't be: we hold the other end too.
                _ => return true,
            }
        }
        false
    }
}

/// Opens the FIFO that is there, or a new one in the place of anything else that Envoy's user put there.
#[expect(
    clippy::disallowed_methods,
    reason = "what is in the way may be anything, and is nobody's file"
)]
fn find(path: &Path) -> io::Result<OwnedFd> {
    for _ in 0..MAX_TRIES {
        match mkfifo(path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let found = open(
            path,
            OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC,
            Mode::empty(),
        )?;
        let stat = fstat(&found)?;
        if is_ours(&stat) {
            // The one that was judged, whatever has its name by now.
            let place = format!("/proc/self/fd/{}", found.as_raw_fd());
            let fd = open(
                place.as_str(),
                OFlag::O_RDWR | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?;
            share(&fd, &stat)?;
            return Ok(fd);
        }
        tracing::warn!("{}: is no FIFO of the agent's, and is replaced", path.display());
        // By its name in Envoy's own directory, which is all that is lost.
        if fs::remove_file(path).is_err() {
            fs::remove_dir_all(path)?;
        }
    }
    Err(io::Error::other("something else is put there again and again"))
}

/// True for a FIFO that the agent made, or an older one that Envoy's user did, and that has no other name: a file that
/// is linked here from elsewhere is somebody else's.
fn is_ours(stat: &FileStat) -> bool {
    let owners = [geteuid().as_raw(), ENVOY_USER.uid];
    SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT == SFlag::S_IFIFO
        && stat.st_nlink == 1
        && owners.contains(&stat.st_uid)
}

/// Lets Envoy's group open a FIFO of the agent's: the directory keeps out all of that group but Envoy. A FIFO of an
/// older agent's is Envoy's own.
fn share(fd: &OwnedFd, stat: &FileStat) -> nix::Result<()> {
    if stat.st_uid == ENVOY_USER.uid {
        return Ok(());
    }
    // In its unit the agent is of that group, and may give nothing to another.
    if stat.st_gid != ENVOY_USER.gid {
        fchown(fd, None, Some(Gid::from_raw(ENVOY_USER.gid)))?;
    }
    // Not by mkfifo(2), whose mode is subject to the umask.
    fchmod(fd, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    use super::*;

    #[tokio::test]
    async fn fifo_replaces_whatever_is_in_its_place_and_touches_nothing_else() {
        let root = tempfile::tempdir().unwrap();
        let (path, other) = (root.path().join("output"), root.path().join("other"));
        mkfifo(&other, Mode::S_IRUSR).unwrap();
        let before = fs::metadata(&other).unwrap();
        let in_the_way: [&dyn Fn(); 4] = [
            &|| fs::hard_link(&other, &path).unwrap(),
            &|| symlink(&other, &path).unwrap(),
            &|| fs::create_dir_all(path.join("full")).unwrap(),
            &|| drop(fs::File::create(&path).unwrap()),
        ];
        for put in in_the_way {
            put();
            Fifo::open(&path).unwrap();
            let made = fs::symlink_metadata(&path).unwrap();
            assert!(made.file_type().is_fifo() && made.ino() != before.ino());
            assert_eq!((made.gid(), made.mode() & 0o777), (ENVOY_USER.gid, 0o660));
            fs::remove_file(&path).unwrap();
        }
        let after = fs::metadata(&other).unwrap();
        assert_eq!((after.mode(), after.gid()), (before.mode(), before.gid()));
    }

    #[tokio::test]
    async fn fifo_of_an_earlier_agent_is_taken_over() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("output");
        drop(Fifo::open(&path).unwrap());
        let before = fs::metadata(&path).unwrap().ino();
        Fifo::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    }
}
