//! The time of day: this machine's, or as many days off it as a case wants. For the servers of the harness; programs
//! see it by libfaketime (`preload`).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

const DAY: u64 = 86_400;

/// A wall clock that can be set.
#[derive(Debug, Default)]
pub struct Clock {
    days_ahead: AtomicI64,
}

impl Clock {
    /// Sets it to so many days from now; negative: before.
    pub fn set(&self, days_ahead: i64) {
        self.days_ahead.store(days_ahead, Ordering::Relaxed);
    }

    /// What it shows.
    pub fn now(&self) -> SystemTime {
        let days = self.days_ahead.load(Ordering::Relaxed);
        let off = Duration::from_secs(days.unsigned_abs() * DAY);
        if days < 0 {
            SystemTime::now() - off
        } else {
            SystemTime::now() + off
        }
    }

    /// In seconds since 1970.
    pub fn seconds(&self) -> u64 {
        self.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

impl TimeProvider for Clock {
    fn current_time(&self) -> Option<UnixTime> {
        self.now()
            .duration_since(UNIX_EPOCH)
            .ok()
            .map(UnixTime::since_unix_epoch)
    }
}

/// The shell's assignments that set the wall clock of a program to so many days from now, and of no other clock.
pub(crate) fn preload(days_ahead: i64) -> Result<String> {
    let library = faketime()?;
    Ok(format!(
        "LD_PRELOAD={} FAKETIME={days_ahead:+}d FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1",
        library.display()
    ))
}

/// The same, with the days in a file (`+1d`), which may change while the program runs.
pub(crate) fn preload_of_file(file: &Path) -> Result<String> {
    let (library, file) = (faketime()?, file.display());
    Ok(format!(
        "LD_PRELOAD={} FAKETIME_TIMESTAMP_FILE={file} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
         NO_FAKE_STAT=1",
        library.display()
    ))
}

/// Debian's libfaketime; tests/setup installs it.
fn faketime() -> Result<PathBuf> {
    let folders = fs::read_dir("/usr/lib")?.flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.exists());
    library.context("there is no libfaketime: run tests/setup")
}
