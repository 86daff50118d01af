//! A Debian with this machine's Rust and nothing else, as on a new machine: tests/bare makes it and runs in it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::process::output_of;
use crate::{programs, sweep};

/// Files of a bare machine, of which only those that were written are kept here. Dropped: gone.
#[derive(Debug)]
pub struct Bare(PathBuf);

impl Bare {
    /// A fresh one.
    pub fn new() -> Result<Self> {
        sweep::leftovers_once()?;
        let name = format!("{}{}-{}", sweep::PREFIX, std::process::id(), programs::next_number());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }

    /// Runs a command in it as root; the repository is at /src. Its stdout, or an error with its stderr.
    pub fn run(&self, line: &[&str]) -> Result<String> {
        let mut command = Command::new(programs::repository("tests/bare"));
        command.arg(&self.0).args(line);
        // That one takes minutes to build; the cases that start it prove that it can be.
        command.env("ISTIO_VM_AGENT_KUBE_APISERVER", "/is/here");
        output_of(command)
    }

    /// Where its files are that commands have written.
    pub fn written(&self) -> &Path {
        &self.0
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
