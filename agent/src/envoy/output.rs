//! Envoy's stdout and stderr: two FIFOs that Envoy may open again by name, that outlive the agent, and that its
//! successor goes on reading.
//!
//! istiod's access log is the file /dev/stdout. Opening that opens what fd 1 is, as Envoy's own user: a pipe or a
//! journal socket of root's refuses, and Envoy then refuses every listener. A FIFO of Envoy's group does not.
//! Each end is opened for reading and writing, so that neither waits for the other and no death breaks it.
//!
//! While nobody reads, a FIFO fills up: that of stderr with 1 MiB of Envoy's own log, which takes long at its usual
//! level. It is opened non-blocking, because a log call that waits would stop a worker: when it is full, Envoy
//! gives up its own log until it is started again, and serves on. The access log has a thread of its own in Envoy,
//! which waits; its lines are kept in Envoy's memory meanwhile, and none is lost.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzz;
mod line;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, Stat, fchmod, fchown, fstat, mkfifoat, openat};
use rustix::pipe::fcntl_setpipe_size;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::OWNER;
use crate::config::PathsConfig;
use crate::host::Host;
use line::{Entry, Level, Lines};

/// What a FIFO holds while nobody reads: the most that a process without privileges may ask for.
const CAPACITY: usize = 1 << 20;
/// What is read at once.
const CHUNK: usize = 64 << 10;
/// How many of Envoy's last complaints say why it died.
const REMEMBERED: usize = 3;
/// How many characters of each.
const LONGEST_COMPLAINT: usize = 300;

/// Both FIFOs.
#[derive(Debug)]
pub(super) struct Output {
    access: Fifo,
    errors: Fifo,
    complaints: Mutex<VecDeque<String>>,
}

impl Output {
    /// Opens the FIFOs, made where they are not there yet; a running Envoy's are, and are taken over.
    pub(super) fn open(host: &Host, paths: &PathsConfig) -> io::Result<Self> {
        Ok(Self {
            access: Fifo::open(&host.real_path(&paths.envoy_output()))?,
            errors: Fifo::open(&host.real_path(&paths.envoy_errors()))?,
            complaints: Mutex::default(),
        })
    }

    /// What a new Envoy is given as stdout and stderr.
    pub(super) fn to_stdio(&self) -> io::Result<(Stdio, Stdio)> {
        let duplicate = |fifo: &Fifo| Ok::<_, io::Error>(Stdio::from(fifo.fd.get_ref().try_clone()?));
        Ok((duplicate(&self.access)?, duplicate(&self.errors)?))
    }

    /// Logs what Envoy writes.
    pub(super) async fn pump(&self) -> Infallible {
        let (never, _) = tokio::join!(
            self.access.pump(access_line),
            self.errors.pump(|line| self.own_line(line))
        );
        never
    }

    /// Envoy's last complaints, what it wrote just now included; forgotten by this.
    pub(super) fn take_complaints(&self) -> String {
        self.errors.take_available(&|line| self.own_line(line));
        let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
        complaints.drain(..).collect::<Vec<_>>().join("; ")
    }

    fn own_line(&self, line: &str) {
        let entry = Entry::parse(line);
        log(&entry);
        // What is in neither of Envoy's formats is not from its log: an unknown flag, a missing library.
        if entry.level >= Level::Error || entry.logger.is_empty() {
            let mut complaints = self.complaints.lock().unwrap_or_else(PoisonError::into_inner);
            if complaints.len() == REMEMBERED {
                complaints.pop_front();
            }
            complaints.push_back(entry.message.chars().take(LONGEST_COMPLAINT).collect());
        }
    }
}

fn access_line(line: &str) {
    tracing::info!(target: "envoy::access", "{line}");
}

fn log(entry: &Entry<'_>) {
    let Entry { level, logger, message } = *entry;
    match level {
        Level::Trace => tracing::trace!(target: "envoy", logger, "{message}"),
        Level::Debug => tracing::debug!(target: "envoy", logger, "{message}"),
        Level::Info => tracing::info!(target: "envoy", logger, "{message}"),
        Level::Warning => tracing::warn!(target: "envoy", logger, "{message}"),
        Level::Error | Level::Critical => tracing::error!(target: "envoy", logger, "{message}"),
    }
}

/// One FIFO and what has been read of its last line.
#[derive(Debug)]
struct Fifo {
    fd: AsyncFd<OwnedFd>,
    lines: Mutex<Lines>,
}

impl Fifo {
    #[expect(
        deprecated,
        reason = "deprecated for types that may change their fd; its successor is `unsafe`, and OwnedFd can't"
    )]
    fn open(path: &Path) -> io::Result<Self> {
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        match mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(failed(error.into())),
        }
        // The directory is Envoy's user's, so what is there is judged by the open file, through no link.
        let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).map_err(|error| failed(error.into()))?;
        let stat = fstat(&fd).map_err(|error| failed(error.into()))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::Fifo {
            return Err(failed(io::Error::other("it is there and is no FIFO: remove it")));
        }
        share(&fd, &stat).map_err(|error| failed(error.into()))?;
        if let Err(error) = fcntl_setpipe_size(&fd, CAPACITY) {
            tracing::debug!("failed to enlarge {}: {error}", path.display());
        }
        Ok(Self {
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
            lines: Mutex::default(),
        })
    }

    async fn pump(&self, line: impl Fn(&str)) -> Infallible {
        loop {
            match self.fd.readable().await {
                Ok(mut readable) => {
                    if self.take_available(&line) {
                        readable.clear_ready();
                    } else {
                        // There is more: others first.
                        tokio::task::yield_now().await;
                    }
                }
                // An error means that the runtime is shutting down.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Reads at most a FIFO's worth; says whether it is empty now.
    fn take_available(&self, line: &impl Fn(&str)) -> bool {
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let mut chunk = vec![0; CHUNK];
        for _ in 0..CAPACITY / CHUNK {
            match rustix::io::read(self.fd.get_ref().as_fd(), &mut chunk) {
                Ok(count @ 1..) => lines.push(&chunk[..count], line),
                Err(rustix::io::Errno::INTR) => {}
                // Empty, as EAGAIN says. End of file and errors can't be: we hold the other end too.
                _ => return true,
            }
        }
        false
    }
}

/// Lets Envoy's group open a FIFO of ours: the directory keeps out all of that group but Envoy. An older agent's is
/// Envoy's own.
fn share(fd: &OwnedFd, stat: &Stat) -> rustix::io::Result<()> {
    if stat.st_uid == OWNER.uid {
        return Ok(());
    }
    // In its unit the agent is of that group, and may give nothing to another.
    if stat.st_gid != OWNER.gid {
        fchown(fd, None, Some(Gid::from_raw(OWNER.gid)))?;
    }
    // Not by mkfifo(2), whose mode is subject to the umask.
    fchmod(fd, Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP)
}

#[cfg(test)]
mod tests;
