//! Files of a folder that somebody else fills: a way to what they gave, and never to what they may not read.
//!
//! Down to the first folder that others than root can write, links are root's, and followed. From there on none is, and
//! a file must be one that the folder's owner could read: else a link to root's own files would make root the one who
//! reads, shows, or removes them for whoever planted it.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::file::named;
use super::{Host, OTHERS_WRITE, Owner, atomic};

/// In such a directory, as /tmp, nobody moves or removes what is another's.
const STICKY: u32 = 0o1000;

/// Flags that find a file and do nothing to it.
pub(super) const FIND: OFlag = OFlag::O_PATH.union(OFlag::O_CLOEXEC);

/// A folder that stays the same one, whatever becomes of its name.
struct Folder {
    descriptor: OwnedFd,
    /// Absent: root's alone.
    giver: Option<Giver>,
}

/// The user whose rights hold in a folder that others than root can write.
#[derive(Clone, Copy)]
struct Giver {
    owner: Owner,
    is_sticky: bool,
}

/// The file at `path`, a link of a giver's itself, and its giver.
pub(super) fn find(path: &Path) -> io::Result<(OwnedFd, Option<Owner>)> {
    let (folder, name) = folder(path)?;
    let found = openat(&folder.descriptor, name, FIND | folder.links(), Mode::empty())?;
    Ok((found, folder.giver.map(|giver| giver.owner)))
}

impl Host {
    /// Tells whether others than root say what is in a directory. One that can't be looked at is nobody's.
    pub fn is_given(&self, directory: &Path) -> bool {
        let at = self.at(directory).join("any");
        folder(&at).is_ok_and(|(folder, _)| folder.giver.is_some())
    }

    /// Removes a file that others gave, and no other that a folder on the way was meanwhile turned to; one that is gone
    /// already is fine.
    pub fn remove_given(&self, path: &Path) -> io::Result<()> {
        let remove = || {
            let at = self.at(path);
            let (folder, name) = folder(&at)?;
            Ok(unlinkat(&folder.descriptor, name, UnlinkatFlags::NoRemoveDir)?)
        };
        match remove() {
            Err(error) if io::Error::kind(&error) != ErrorKind::NotFound => Err(named(path, error)),
            _ => Ok(()),
        }
    }

    /// Writes a file as [`Host::write`] does, into that folder and no other.
    pub fn write_given(&self, path: &Path, text: &str, mode: u32, owner: Owner) -> io::Result<()> {
        let write = || {
            let at = self.at(path);
            let (folder, name) = folder(&at)?;
            let place = PathBuf::from(format!("/proc/self/fd/{}", folder.descriptor.as_raw_fd()));
            atomic::write(&place.join(name), text.as_bytes(), mode, Some(owner))
        };
        write().map_err(|error| named(path, error))
    }
}

/// The folder of `path`, and the file's name in it.
fn folder(path: &Path) -> io::Result<(Folder, &Path)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("is no file's name"))?;
    let mut folder = Folder {
        descriptor: open("/", FIND | OFlag::O_DIRECTORY, Mode::empty())?,
        giver: None,
    };
    for component in path.parent().unwrap_or(path).components() {
        let part = match component {
            Component::RootDir | Component::CurDir => continue,
            Component::Normal(part) => part,
            _ => return Err(io::Error::other("is not an absolute path without `..`")),
        };
        let flags = FIND | OFlag::O_DIRECTORY | folder.links();
        let next = openat(&folder.descriptor, part, flags, Mode::empty());
        folder.descriptor = next.map_err(|error| match error {
            // What an open(2) of a directory that follows no link says of one.
            Errno::ENOTDIR | Errno::ELOOP if folder.giver.is_some() => {
                io::Error::other("is behind a link of others than root")
            }
            error => error.into(),
        })?;
        folder.giver = match (folder.giver, giver(&folder.descriptor)?) {
            // Root's own, in a folder such as /tmp: nobody else can have put it there.
            (Some(Giver { is_sticky: true, .. }), None) => None,
            (earlier, here) => earlier.or(here),
        };
    }
    Ok((folder, Path::new(name)))
}

impl Folder {
    fn links(&self) -> OFlag {
        self.giver.map_or(OFlag::empty(), |_| OFlag::O_NOFOLLOW)
    }
}

/// The owner of a folder that others than root can write.
fn giver(folder: &OwnedFd) -> io::Result<Option<Giver>> {
    let meta = fstat(folder)?;
    let is_roots = meta.st_uid == 0 && meta.st_mode & OTHERS_WRITE == 0;
    Ok((!is_roots).then_some(Giver {
        owner: Owner {
            uid: meta.st_uid,
            gid: meta.st_gid,
        },
        is_sticky: meta.st_uid == 0 && meta.st_mode & STICKY != 0,
    }))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;
    use crate::host::{Read, ReadError, System};

    const COPIER: u32 = 54_321;

    /// `/theirs`, the copier's, and a file of root's with a secret.
    fn host() -> (tempfile::TempDir, Host) {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        for folder in ["/theirs", "/roots"] {
            host.make_directory(Path::new(folder), 0o755, None).unwrap();
        }
        host.write(Path::new("/roots/shadow"), "secret", 0o600, None).unwrap();
        chown(root.path().join("theirs"), Some(COPIER), Some(COPIER)).unwrap();
        (root, host)
    }

    fn read(host: &Host, path: &str) -> Result<Option<String>, ReadError> {
        host.read(Path::new(path), Read::max(9).given())
    }

    fn error(host: &Host, path: &str) -> String {
        read(host, path).unwrap_err().problem().to_string()
    }

    #[test]
    fn given_file_of_the_folders_owner_is_read() {
        let (root, host) = host();
        let path = Path::new("/theirs/hosts");
        assert_eq!(read(&host, "/theirs/hosts").unwrap(), None);
        assert_eq!(read(&host, "/none/hosts").unwrap(), None);
        let theirs = Owner {
            uid: COPIER,
            gid: COPIER,
        };
        host.write_given(path, "text", 0o600, theirs).unwrap();
        assert_eq!(read(&host, "/theirs/hosts").unwrap().as_deref(), Some("text"));
        let out = "is not an absolute path without `..`";
        assert_eq!(error(&host, "/theirs/../roots/shadow"), out);
        host.remove_given(path).unwrap();
        host.remove_given(path).unwrap();
        assert_eq!(fs::read_dir(root.path().join("theirs")).unwrap().count(), 0);
    }

    #[test]
    fn links_of_root_are_followed_and_nobody_elses() {
        let (root, host) = host();
        let at = |path: &str| root.path().join(path);
        symlink("shadow", at("roots/hosts")).unwrap();
        assert_eq!(read(&host, "/roots/hosts").unwrap().as_deref(), Some("secret"));

        symlink("../roots/shadow", at("theirs/hosts")).unwrap();
        symlink("../roots", at("theirs/bundle")).unwrap();
        assert_eq!(error(&host, "/theirs/hosts"), "is a link");
        let behind = "is behind a link of others than root";
        assert_eq!(error(&host, "/theirs/bundle/shadow"), behind);
        host.remove_given(Path::new("/theirs/bundle/shadow")).unwrap_err();
        let nobodys = Path::new("/theirs/bundle/new");
        host.write_given(nobodys, "", 0o600, Owner { uid: 0, gid: 0 })
            .unwrap_err();
        assert!(at("roots/shadow").exists() && !at("roots/new").exists());

        // A folder of root's that others may write is as good as theirs.
        for mode in [0o775, 0o1777] {
            fs::set_permissions(at("roots"), fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(error(&host, "/roots/hosts"), "is a link");
        }
        // But for what is root's own in one such as /tmp.
        host.make_directory(Path::new("/roots/own"), 0o755, None).unwrap();
        symlink("../shadow", at("roots/own/hosts")).unwrap();
        assert_eq!(read(&host, "/roots/own/hosts").unwrap().as_deref(), Some("secret"));
        fs::set_permissions(at("roots"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(error(&host, "/roots/own/hosts"), "is a link");
    }

    #[test]
    fn given_file_that_its_giver_could_not_read_is_refused() {
        let (root, host) = host();
        let at = |path: &str| root.path().join(path);
        fs::hard_link(at("roots/shadow"), at("theirs/hosts")).unwrap();
        assert_eq!(error(&host, "/theirs/hosts"), "has another name elsewhere");
        fs::remove_file(at("roots/shadow")).unwrap();
        let problem = format!("user {COPIER}, whose directory it is in, may not read it");
        assert_eq!(error(&host, "/theirs/hosts"), problem);
        fs::remove_file(at("theirs/hosts")).unwrap();
        nix::unistd::mkfifo(&at("theirs/hosts"), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert_eq!(error(&host, "/theirs/hosts"), "is not a regular file");
    }
}
