//! A process that may outlive the agent: watched by pidfd, so that one we adopted is watched like a child.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::timeout;

use crate::host::{Host, blocking};

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
        let fd = pidfd_open(raw(pid)?, PidfdFlags::NONBLOCK)?;
        Ok(Self {
            pid,
            fd: AsyncFd::with_interest(fd, Interest::READABLE)?,
        })
    }

    /// The process that has this pid and started then; `None` when it has ended or the pid is another's now.
    pub fn find(pid: u32, started: u64) -> Option<Self> {
        let process = Self::open(pid).ok()?;
        is_running(pid, started).then_some(process)
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Completes when it has ended, and reaps it if it is our child: only then its status is known.
    pub async fn ended(&self) -> Option<ExitStatus> {
        // An error here means that the fd is no pidfd any more, which can't be.
        let _ = self.fd.readable().await;
        let id = WaitId::PidFd(self.fd.get_ref().as_fd());
        let status = waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok()??;
        // As wait(2) encodes it: the exit code in the second byte, the signal in the first.
        let code = status.exit_status().map(|code| code << 8);
        Some(ExitStatus::from_raw(code.or_else(|| status.terminating_signal())?))
    }

    /// Sends a signal; one that has ended already is fine. Where this process has no right to, as in the agent's unit,
    /// systemd sends it, if the process is the main one of a unit.
    async fn signal(&self, signal: Signal) -> io::Result<()> {
        match pidfd_send_signal(self.fd.get_ref(), signal) {
            Err(rustix::io::Errno::SRCH) | Ok(()) => Ok(()),
            Err(rustix::io::Errno::PERM) => {
                let (pid, signal) = (self.pid, signal.as_raw());
                let sent = blocking(move || Host::system().signal_unit_of(pid, signal));
                sent.await.map_err(io::Error::other)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// TERM, and KILL when it has not ended within `grace`; completes when it has ended.
    pub async fn terminate(&self, grace: Duration) -> io::Result<()> {
        self.signal(Signal::TERM).await?;
        if timeout(grace, self.ended()).await.is_err() {
            tracing::warn!(pid = self.pid, "did not end within {grace:?} of TERM: killing it");
            self.signal(Signal::KILL).await?;
            self.ended().await;
        }
        Ok(())
    }
}

/// Tells whether the process that has this pid and started then still runs; a zombie does not.
pub fn is_running(pid: u32, started: u64) -> bool {
    Host::system().is_running(pid, started)
}

/// When a process started, in clock ticks after boot.
///
/// # Errors
/// When there is no such process.
pub fn start_time(pid: u32) -> io::Result<u64> {
    Host::system().start_time(pid)
}

fn raw(pid: u32) -> io::Result<Pid> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    raw.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("600").spawn().unwrap()
    }

    #[tokio::test]
    async fn child_is_terminated_and_its_status_known() {
        let pid = sleeper().id();
        let process = Process::find(pid, start_time(pid).unwrap()).unwrap();
        process.signal(Signal::TERM).await.unwrap();
        assert_eq!(process.ended().await.unwrap().signal(), Some(15));
    }

    #[tokio::test]
    async fn process_of_a_pid_that_was_given_again_is_not_found() {
        let mut child = sleeper();
        let started = start_time(child.id()).unwrap();
        assert!(Process::find(child.id(), started + 1).is_none());
        child.kill().unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(9));
        assert!(Process::find(child.id(), started).is_none());
    }

    #[test]
    fn zombie_does_not_run() {
        let mut child = sleeper();
        let (pid, started) = (child.id(), start_time(child.id()).unwrap());
        assert!(is_running(pid, started));
        child.kill().unwrap();
        while is_running(pid, started) {
            std::thread::yield_now();
        }
        // It is not reaped yet, so it still has the pid.
        assert_eq!(start_time(pid).unwrap(), started);
        child.wait().unwrap();
    }
}
