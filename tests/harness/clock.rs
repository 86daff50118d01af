//! The time of day: this machine's, or as many days off it as a case wants. [`Clock`] is for the servers of the harness;
//! a program has `OwnClocks`, by a library in the place of the C library's clocks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

use crate::process::output_of;

/// In seconds.
pub const DAY: u64 = 86_400;

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

    /// Time that the clock shows.
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

/// The clocks of one program, which may be moved while it runs.
#[derive(Debug)]
pub(crate) struct OwnClocks {
    file: File,
    /// Seconds by which the wall clock is ahead of this machine's.
    ahead: i64,
    /// Seconds that the program's machine has slept.
    asleep: i64,
    /// The shell's assignments that give a program these clocks.
    pub(crate) preload: String,
}

impl OwnClocks {
    /// As this machine's, with files in `folder`.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let (source, library, file) = (folder.join("clocks.c"), folder.join("clocks.so"), folder.join("clocks"));
        fs::write(&source, include_str!("clock/preload.c"))?;
        let mut compile = Command::new("cc");
        compile
            .args(["-O2", "-shared", "-fPIC", "-o"])
            .arg(&library)
            .arg(&source);
        output_of(compile)?;
        let mut clocks = Self {
            file: File::create(&file)?,
            ahead: 0,
            asleep: 0,
            preload: format!("LD_PRELOAD={} OWN_CLOCKS={}", library.display(), file.display()),
        };
        clocks.set_days_ahead(0)?;
        Ok(clocks)
    }

    /// Sets the wall clock to so many days from now.
    pub(crate) fn set_days_ahead(&mut self, days: i64) -> Result<()> {
        self.ahead = days * DAY as i64;
        self.write()
    }

    /// Has the machine sleep for so many days, and wake at once.
    pub(crate) fn sleep(&mut self, days: i64) -> Result<()> {
        self.ahead += days * DAY as i64;
        self.asleep += days * DAY as i64;
        self.write()
    }

    fn write(&self) -> Result<()> {
        let bytes = [self.ahead.to_ne_bytes(), self.asleep.to_ne_bytes()].concat();
        Ok(self.file.write_all_at(&bytes, 0)?)
    }
}
