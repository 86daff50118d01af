//! The one way to read a file: whoever made it, it is a regular one, no longer than it may be, and waits for nobody.
//!
//! A file is found at its path without being opened, judged, and only then opened: to open a FIFO waits for a writer, and
//! to open a device may do something.

use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;

use super::given::FIND;
use super::{Host, Owner, given};

/// Permission bits of one class (owner, group or others).
const READ: u32 = 0o4;
const SEARCH: u32 = 0o1;

/// Room for the first piece of what has no length, as in /proc, in bytes. Without any the library asks for 32, which is all
/// that it gets of a list of ports (proc_do_large_bitmap in Linux' kernel/sysctl.c).
const OF_NO_LENGTH: usize = 8 << 10;

/// Conditions on a file that is to be read. Without further word: a regular file of at most so many bytes, whose name
/// is no link.
#[derive(Clone, Copy, Debug)]
pub struct Read {
    max: usize,
    links: Links,
    owner: Option<u32>,
    private: bool,
    reader: Option<Owner>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Links {
    Followed,
    NotTheLast,
    /// Only those that nobody but root can have made.
    Roots,
    None,
}

/// Why a file was not read. What it holds is not told.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ReadError {
    path: PathBuf,
    problem: io::Error,
    /// Counted from 1; where the problem is in the text.
    line: Option<usize>,
}

/// An open file that is what it must be.
#[derive(Debug)]
pub struct Opened {
    path: PathBuf,
    file: File,
    meta: Metadata,
    max: usize,
}

impl Read {
    /// A regular file of at most `bytes` bytes.
    pub const fn max(bytes: usize) -> Self {
        Self {
            max: bytes,
            links: Links::NotTheLast,
            owner: None,
            private: false,
            reader: None,
        }
    }

    /// Or a link to one: for what an operator, or the system, may keep elsewhere.
    pub const fn following_links(self) -> Self {
        Self {
            links: Links::Followed,
            ..self
        }
    }

    /// No directory on its way is a link either, and it has no second name: for directories that are another user's.
    pub const fn without_links(self) -> Self {
        Self {
            links: Links::None,
            ..self
        }
    }

    /// Links are followed down to the first directory that others than root can write, and from there on none is; a file
    /// in it must have one name only, and be one that the directory's owner could read. For files that others give: root
    /// does nothing for them that they couldn't do.
    pub const fn given(self) -> Self {
        Self {
            links: Links::Roots,
            ..self
        }
    }

    /// Requires the file to be this user's.
    pub const fn owned_by(self, uid: u32) -> Self {
        Self {
            owner: Some(uid),
            ..self
        }
    }

    /// Requires a mode that keeps the file from everybody but its owner.
    pub const fn private(self) -> Self {
        Self { private: true, ..self }
    }

    /// `reader` may read it by itself, so that asking for it gains nobody anything. Supplementary groups and ACLs don't
    /// count.
    pub const fn readable_by(self, reader: Owner) -> Self {
        Self {
            reader: Some(reader),
            ..self
        }
    }

    /// The file, and by whose rights it is judged.
    fn find(self, path: &Path) -> io::Result<(OwnedFd, Option<Owner>)> {
        let found = match self.links {
            Links::Followed => open(path, FIND, Mode::empty())?,
            Links::NotTheLast => open(path, FIND | OFlag::O_NOFOLLOW, Mode::empty())?,
            Links::Roots => return given::find(path),
            Links::None => walk(path)?,
        };
        Ok((found, None))
    }

    /// Judges what was found; nothing has been asked of it yet.
    fn judge(self, found: &File, giver: Option<Owner>) -> io::Result<Metadata> {
        let meta = found.metadata()?;
        if meta.is_symlink() {
            return Err(io::Error::other("is a link"));
        }
        if !meta.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a regular file"));
        }
        if (self.links == Links::None || giver.is_some()) && meta.nlink() != 1 {
            return Err(io::Error::other("has another name elsewhere"));
        }
        if let Some(giver) = giver
            && !permits(&meta, giver, READ)
        {
            let problem = format!("user {}, whose directory it is in, may not read it", giver.uid);
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        if let Some(owner) = self.owner
            && owner != meta.uid()
        {
            let problem = format!("is user {}'s and not user {owner}'s", meta.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
        }
        if self.private
            && let Some(exposure) = exposure(&meta)
        {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, exposure));
        }
        match self.reader {
            Some(reader) if !may_read(reader, found, &meta) => Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                format!("user {} may not read it", reader.uid),
            )),
            _ => Ok(meta),
        }
    }
}

impl ReadError {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line that is no text, counted from 1; `None` where the problem is in no line.
    pub fn line(&self) -> Option<usize> {
        self.line
    }

    /// The problem, without the file's name.
    pub fn problem(&self) -> &io::Error {
        &self.problem
    }
}

impl Host {
    /// Reads a whole text file that is as `how` says; `None` when there is none.
    ///
    /// # Errors
    /// When it is not as `how` says, no UTF-8, or can't be read.
    pub fn read(&self, path: &Path, how: Read) -> Result<Option<String>, ReadError> {
        self.open(path, how)?.map(Opened::text).transpose()
    }

    /// Reads a whole file that is as `how` says, in whatever encoding; `None` when there is none.
    ///
    /// # Errors
    /// When it is not as `how` says, or can't be read.
    pub fn read_bytes(&self, path: &Path, how: Read) -> Result<Option<Vec<u8>>, ReadError> {
        self.open(path, how)?.map(Opened::bytes).transpose()
    }

    /// Opens a file that is as `how` says; `None` when there is none.
    ///
    /// # Errors
    /// When it is not as `how` says, or can't be opened.
    pub fn open(&self, path: &Path, how: Read) -> Result<Option<Opened>, ReadError> {
        let opened = (|| {
            let (found, giver) = how.find(&self.at(path))?;
            let found = File::from(found);
            let meta = how.judge(&found, giver)?;
            // The file that was judged, whatever has its name by now.
            let place = format!("/proc/self/fd/{}", found.as_raw_fd());
            let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let file = File::from(open(place.as_str(), flags, Mode::empty())?);
            Ok((file, meta))
        })();
        match opened {
            Ok((file, meta)) => Ok(Some(Opened {
                path: path.to_owned(),
                file,
                meta,
                max: how.max,
            })),
            Err(error) if io::Error::kind(&error) == io::ErrorKind::NotFound => Ok(None),
            Err(problem) => Err(ReadError {
                path: path.to_owned(),
                problem,
                line: None,
            }),
        }
    }
}

impl Opened {
    /// Owner, mode, and time of the last change of the file that is read.
    pub fn meta(&self) -> &Metadata {
        &self.meta
    }

    /// Why it is no fit place for a secret: others may open it; `None` when it is one.
    pub fn exposure(&self) -> Option<String> {
        exposure(&self.meta)
    }

    /// All of it, as text.
    ///
    /// # Errors
    /// When it is too long, no UTF-8, or can't be read.
    pub fn text(self) -> Result<String, ReadError> {
        let path = self.path.clone();
        String::from_utf8(self.bytes()?).map_err(|error| {
            let text = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            ReadError {
                path,
                problem: io::Error::new(io::ErrorKind::InvalidData, "is not UTF-8 text"),
                line: Some(text.split(|byte| *byte == b'\n').count()),
            }
        })
    }

    /// All of it, in whatever encoding.
    ///
    /// # Errors
    /// When it is too long, or can't be read.
    pub fn bytes(self) -> Result<Vec<u8>, ReadError> {
        let Self { path, file, meta, max } = self;
        let read = || {
            // In one piece: a large one is not copied while it grows, and some of /proc/sys give no second piece.
            let length = match meta.len() {
                0 => OF_NO_LENGTH,
                length => usize::try_from(length).unwrap_or(max),
            };
            let mut bytes = Vec::with_capacity(length.min(max));
            file.take((max as u64).saturating_add(1)).read_to_end(&mut bytes)?;
            if bytes.len() > max {
                let problem = format!("is longer than {max} bytes");
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
            }
            Ok(bytes)
        };
        read().map_err(|problem| ReadError {
            path,
            problem,
            line: None,
        })
    }

    /// The file itself, to be read piece by piece: nothing bounds it.
    pub(super) fn into_file(self) -> File {
        self.file
    }
}

/// Finds a file from the root on, name by name, through no link: a link found on the way is no directory to go on from.
/// `openat2` would do it in one call, on kernels from 5.6 on.
fn walk(path: &Path) -> io::Result<OwnedFd> {
    let mut found = open("/", FIND, Mode::empty())?;
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => {
                found = openat(&found, name, FIND | OFlag::O_NOFOLLOW, Mode::empty())?;
            }
            _ => return Err(io::Error::other("is not an absolute path without `..`")),
        }
    }
    Ok(found)
}

fn exposure(meta: &Metadata) -> Option<String> {
    let mode = meta.mode() & 0o7777;
    (mode & 0o077 != 0).then(|| format!("others may open it (mode {mode:04o}): chmod 0600"))
}

/// Tells whether a file is `reader`'s to read where it really is, whatever links led to it and have been turned since.
fn may_read(reader: Owner, found: &File, meta: &Metadata) -> bool {
    // What has no name any more, or never had one, has no directories that could keep it from anybody.
    let Ok(place) = fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd())) else {
        return false;
    };
    meta.nlink() > 0
        && permits(meta, reader, READ)
        && place
            .ancestors()
            .skip(1)
            .all(|directory| fs::metadata(directory).is_ok_and(|directory| permits(&directory, reader, SEARCH)))
}

/// Tells whether the mode gives `reader` this permission.
fn permits(meta: &Metadata, reader: Owner, permission: u32) -> bool {
    let class = match reader {
        Owner { uid: 0, .. } => return true,
        Owner { uid, .. } if uid == meta.uid() => 6,
        Owner { gid, .. } if gid == meta.gid() => 3,
        _ => 0,
    };
    meta.mode() >> class & permission != 0
}

#[cfg(test)]
mod tests;
