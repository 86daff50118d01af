//! A disk that is full as soon as a case wants it to be.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::output_of;

/// A file system in memory. Dropped: gone.
#[derive(Debug)]
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(crate) fn at(folder: PathBuf, megabytes: u32) -> Result<Self> {
        fs::create_dir_all(&folder)?;
        let mut mount = Command::new("mount");
        mount
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}M,mode=700"), "tmpfs"])
            .arg(&folder);
        output_of(mount).context("failed to give the VM a disk")?;
        Ok(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("--lazy").arg(&self.0);
        let _ = output_of(umount);
    }
}
