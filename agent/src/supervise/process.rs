//! A process that may outlive the agent: watched by pidfd, so that one we adopted is watched like a child.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A handle on one incarnation of a process; a reused pid is never mistaken for it.
#[derive(Debug)]
pub struct Process {
    pid: u32,
    fd: AsyncFd<OwnedFd>,
}

impl Process {
    /// The process with this pid, now. Whether it is the wanted one (start time, program) is checked after,
    /// by `start_time`: the handle keeps the pid from being somebody else's between.
    #[expect(
        deprecated,
        reason = "deprecated for types that may change their fd; its successor is `unsafe`, and OwnedFd can't"
    )]
    pub fn open(pid: u32) -> io::Result<Self> {
        let raw = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let fd = pidfd_open(raw, PidfdFlags::NONBLOCK)?;
        Ok(Self {
            pid,
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
        })
    }

    /// Its pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Completes when it has ended.
    pub async fn ended(&self) {
        // An error here means that the fd is no pidfd any more, which can't be.
        let _ = self.fd.readable().await;
    }

    /// Sends a signal; one that has ended already is fine.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// When a process started, in clock ticks after boot (field 22 of /proc/PID/stat, proc(5)).
pub fn start_time(pid: u32) -> io::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The second field is the program's name in brackets and may hold anything, brackets and blanks included.
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name
        .split_ascii_whitespace()
        .nth(19)
        .and_then(|field| field.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: has no start time")))
}
