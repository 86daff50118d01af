//! Files that appear in their place whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

use tempfile::NamedTempFile;

use super::Owner;

/// Writes a file: a temporary one beside it, fsync, rename, fsync of the directory. `owner` absent: the caller's.
pub(super) fn write(place: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let mut file = beside(place)?;
    file.write_all(content)?;
    put(file, place, mode, owner)
}

/// Writes a file that nobody reads after a boot: as [`write()`] does, without its waits for the disk, which can take a second.
pub(super) fn write_until_reboot(place: &Path, content: &[u8], mode: u32, owner: Option<Owner>) -> io::Result<()> {
    let mut file = beside(place)?;
    file.write_all(content)?;
    hand_over(file.as_file(), mode, owner)?;
    file.persist(place)?;
    Ok(())
}

/// Begins a file that will be `place`, for this user alone until then. Dropped, it leaves nothing.
pub(super) fn beside(place: &Path) -> io::Result<NamedTempFile> {
    let name = place
        .file_name()
        .ok_or_else(|| io::Error::other("is not a file name"))?;
    tempfile::Builder::new()
        .prefix(&format!(".{}.istio-vm-agent.", name.to_string_lossy()))
        // Not `tempfile_in`, whose errors name the temporary file.
        .make_in(directory_of(place), |path| {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(0o600).open(path)
        })
}

/// Puts a file that was begun beside `place` there, over what is there.
pub(super) fn put(file: NamedTempFile, place: &Path, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    hand_over(file.as_file(), mode, owner)?;
    file.as_file().sync_all()?;
    file.persist(place)?;
    File::open(directory_of(place))?.sync_all()
}

/// Gives a file its owner and its mode.
fn hand_over(file: &File, mode: u32, owner: Option<Owner>) -> io::Result<()> {
    if let Some(owner) = owner {
        give(file, owner)?;
    }
    // After the chown, which clears set-id bits; and not subject to the umask.
    file.set_permissions(fs::Permissions::from_mode(mode))
}

/// Gives a file a further name: a temporary one beside it, rename, fsync of the directory.
pub(super) fn link(file: &Path, place: &Path) -> io::Result<()> {
    let linked = tempfile::Builder::new()
        .prefix(".istio-vm-agent.")
        .make_in(directory_of(place), |path| fs::hard_link(file, path))?;
    // Between two names of one file rename(2) does nothing; then the temporary one goes with `linked`.
    fs::rename(linked.path(), place)?;
    File::open(directory_of(place))?.sync_all()
}

/// Makes a file `owner`'s, where it is not already: in its unit the agent may give none away.
pub(super) fn give(file: &File, owner: Owner) -> io::Result<()> {
    let there = file.metadata()?;
    if (there.uid(), there.gid()) == (owner.uid, owner.gid) {
        return Ok(());
    }
    fchown(file, Some(owner.uid), Some(owner.gid))
}

fn directory_of(place: &Path) -> &Path {
    place.parent().unwrap_or_else(|| Path::new("/"))
}
