//! The store of fetched programs: `<state>/envoy/<pin>/envoy`, and beside each its SHA-256, by which it is judged at
//! every start.

use std::fs::File;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::unpack::MAX_PROGRAM_BYTES;
use crate::envoy::options::Options;
use crate::host::{Host, Read, Staged};

/// The file of the program's SHA-256, as `sha256sum` writes it, so that an operator can check it too.
const SUM_FILE: &str = "envoy.sha256";
/// The longest file of a SHA-256, in bytes.
const MAX_SUM_BYTES: usize = 256;

/// Copies a program out of what was fetched; `false` when there is none in it.
type Unpack = fn(&mut File, &mut Staged) -> Result<bool>;

#[derive(Clone, Debug)]
pub(super) struct Store {
    host: Host,
    root: PathBuf,
}

impl Store {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            host: options.host.clone(),
            root: options.paths.envoys(),
        }
    }

    /// The path of this pin's program, as Envoy's user is to find it.
    pub(super) fn path(&self, pin: &str) -> PathBuf {
        self.host.real_path(&self.place(pin))
    }

    fn place(&self, pin: &str) -> PathBuf {
        self.root.join(pin).join("envoy")
    }

    /// The program of this pin, if it is here and still the one that was fetched.
    pub(super) fn find(&self, pin: &str) -> Option<PathBuf> {
        let directory = self.root.join(pin);
        let sum = self
            .host
            .read(&directory.join(SUM_FILE), Read::max(MAX_SUM_BYTES))
            .ok()??;
        let found = self.host.sha256(&directory.join("envoy"));
        match found {
            Ok(Some(found)) if sum == line(&found) => Some(self.path(pin)),
            Ok(None) => None,
            Ok(Some(_)) => {
                tracing::warn!("{}: is no longer what was fetched", self.path(pin).display());
                None
            }
            Err(error) => {
                tracing::warn!("failed to check a kept Envoy: {error}");
                None
            }
        }
    }

    /// The program that was kept last, of those with another pin.
    pub(super) fn newest_but(&self, pin: &str) -> Option<PathBuf> {
        let mut pins = self.pins();
        pins.retain(|name| name != pin);
        pins.sort_by_key(|pin| self.host.target_meta(&self.place(pin)).ok()??.modified().ok());
        pins.iter().rev().find_map(|pin| self.find(pin))
    }

    /// Makes a file to fetch into.
    pub(super) fn receive(&self) -> Result<Staged> {
        // Envoy's user passes through all of it.
        self.host
            .make_directory(&self.root, 0o755, None)
            .context("failed to make the directory of fetched Envoys")?;
        self.remove(|name| name.starts_with('.'));
        Ok(self.host.stage(&self.root.join("fetched"), MAX_PROGRAM_BYTES)?)
    }

    /// Keeps the program that `unpack` finds in what was fetched; `None` when it finds none.
    pub(super) fn keep(&self, pin: &str, mut fetched: Staged, unpack: Unpack) -> Result<Option<PathBuf>> {
        let directory = self.root.join(pin);
        self.host.make_directory(&directory, 0o755, None)?;
        let place = directory.join("envoy");
        // The sum goes first: without it nothing is taken for whole.
        self.host.remove(&directory.join(SUM_FILE))?;
        let mut program = self.host.stage(&place, MAX_PROGRAM_BYTES)?;
        if !unpack(fetched.reader()?, &mut program)? {
            return Ok(None);
        }
        let sum = line(&program.sha256());
        program.place(0o755).context("failed to keep the fetched Envoy")?;
        self.host.write(&directory.join(SUM_FILE), &sum, 0o644, None)?;
        match self.find(pin) {
            Some(path) => Ok(Some(path)),
            None => bail!("the fetched Envoy can't be read back from {}", self.path(pin).display()),
        }
    }

    /// Removes all programs but that of this pin; `None`: all of them.
    pub(super) fn remove_others(&self, pin: Option<&str>) {
        self.remove(|name| Some(name) != pin);
        if pin.is_none() {
            // As it is by now.
            let _ = self.host.remove_empty_directory(&self.root);
        }
    }

    fn remove(&self, which: impl Fn(&str) -> bool) {
        for name in self.names().into_iter().filter(|name| which(name)) {
            let path = self.root.join(&name);
            let is_directory = matches!(self.host.meta(&path), Ok(Some(meta)) if meta.is_dir());
            let removed = match is_directory {
                true => self.host.remove_directory(&path),
                false => self.host.remove(&path),
            };
            match removed {
                Ok(()) if is_directory => {
                    tracing::info!(pin = name, "removed an Envoy that is not configured any more");
                }
                Ok(()) => {}
                Err(error) => tracing::warn!("failed to remove an Envoy that is not configured any more: {error}"),
            }
        }
    }

    fn pins(&self) -> Vec<String> {
        let mut names = self.names();
        names.retain(|name| !name.starts_with('.'));
        names
    }

    fn names(&self) -> Vec<String> {
        self.host.names_in(&self.root).unwrap_or_default()
    }
}

fn line(sha256: &str) -> String {
    format!("{sha256}  envoy\n")
}
