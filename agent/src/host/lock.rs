//! One agent per run directory.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Host;

/// Held for as long as it lives; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it is what unlocks")] File);

impl Host {
    /// Takes the lock file `path`, or says which process has it.
    pub fn lock(&self, path: &Path) -> io::Result<Lock> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .mode(0o600)
            .open(self.at(path))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        if file.try_lock().is_err() {
            let holder = io::read_to_string(&file).unwrap_or_default();
            let problem = format!("{}: held by the agent with pid {}", path.display(), holder.trim());
            return Err(io::Error::new(io::ErrorKind::WouldBlock, problem));
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let root = tempfile::tempdir().unwrap();
        let host = Host::new(root.path(), System);
        let first = host.lock(Path::new("/lock")).unwrap();
        let error = host.lock(Path::new("/lock")).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("/lock: held by the agent with pid {}", std::process::id())
        );
        drop(first);
        host.lock(Path::new("/lock")).unwrap();
    }
}
