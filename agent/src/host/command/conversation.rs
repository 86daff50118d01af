//! A child's pipes until it has ended: written to and read side by side, within bounds of time and size.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::Child;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::time::Instant;

/// A list of netfilter rules of a host with thousands of services.
const MAX_STDOUT: usize = 16 << 20;
/// Bytes of stderr that are kept; more are dropped.
const MAX_STDERR: usize = 1 << 20;
/// Between TERM and KILL.
const GRACE: Duration = Duration::from_secs(1);

/// A child's output, and the bound it went over.
#[derive(Debug, Default)]
pub(super) struct Conversation {
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: Vec<u8>,
    pub(super) excess: Option<Excess>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Excess {
    Time,
    /// More than so many bytes of stdout.
    Output(usize),
}

/// Talks with `child` until it ends or goes over a bound; the caller reaps it. Whoever inherited its pipes and outlives
/// it is not waited for.
pub(super) fn hold(child: &mut Child, stdin: &[u8], limit: Duration) -> io::Result<Conversation> {
    let deadline = Instant::now() + limit;
    let process = pidfd(child)?;
    let (mut writes, mut reads, mut complains) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    for pipe in [fd(&writes), fd(&reads), fd(&complains)].into_iter().flatten() {
        fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    let mut said = Conversation::default();
    let mut unsaid = stdin;
    loop {
        if unsaid.is_empty() {
            writes = None;
        }
        let ready = wait(&process, [fd(&writes), fd(&reads), fd(&complains)], deadline)?;
        let Some([ended, writable, readable, complaint]) = ready else {
            said.excess = Some(Excess::Time);
            return Ok(said);
        };
        if writable && !write(&mut writes, &mut unsaid) {
            // A child that reads no more is judged by its status.
            writes = None;
        }
        // Once more when it has ended: what it said last is still in the pipes.
        if (readable || ended) && !read(&mut reads, &mut said.stdout, MAX_STDOUT + 1)? {
            reads = None;
        }
        if (complaint || ended) && !read(&mut complains, &mut said.stderr, MAX_STDERR)? {
            complains = None;
        }
        if said.stdout.len() > MAX_STDOUT {
            said.excess = Some(Excess::Output(MAX_STDOUT));
            return Ok(said);
        }
        if ended {
            return Ok(said);
        }
    }
}

/// TERM to the child and all that it started, and KILL when it has not ended soon. The caller reaps it, so that its
/// number is nobody else's before.
pub(super) fn end(child: &Child) {
    let Ok(group) = child.id().try_into().map(Pid::from_raw) else {
        return;
    };
    // What is gone already is fine.
    let _ = killpg(group, Signal::SIGTERM);
    // One that can't be waited for gets no grace: the caller waits for its end without a bound.
    if let Ok(process) = pidfd(child) {
        let _ = wait(&process, [None; 3], Instant::now() + GRACE);
    }
    let _ = killpg(group, Signal::SIGKILL);
}

fn pidfd(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(
        rustix::process::Pid::from_child(child),
        PidfdFlags::empty(),
    )?)
}

fn fd(pipe: &Option<impl AsFd>) -> Option<BorrowedFd<'_>> {
    pipe.as_ref().map(AsFd::as_fd)
}

/// Tells what is ready: the process's end, stdin, stdout, stderr. `None` at the deadline.
fn wait(
    process: &OwnedFd,
    [stdin, stdout, stderr]: [Option<BorrowedFd<'_>>; 3],
    deadline: Instant,
) -> io::Result<Option<[bool; 4]>> {
    let wanted = [
        (Some(process.as_fd()), PollFlags::POLLIN),
        (stdin, PollFlags::POLLOUT),
        (stdout, PollFlags::POLLIN),
        (stderr, PollFlags::POLLIN),
    ];
    let open = wanted
        .iter()
        .filter_map(|(fd, flags)| Some(PollFd::new((*fd)?, *flags)));
    let mut polled: Vec<PollFd<'_>> = open.collect();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        match poll(&mut polled, PollTimeout::try_from(left).map_err(io::Error::other)?) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => break,
            Err(error) => return Err(error.into()),
        }
    }
    let mut events = polled.iter().map(|fd| fd.any().unwrap_or(true));
    Ok(Some(wanted.map(|(fd, _)| fd.is_some() && events.next() == Some(true))))
}

/// Writes what goes in; `false` when nothing more will.
fn write(pipe: &mut Option<impl Write>, unsaid: &mut &[u8]) -> bool {
    match pipe.as_mut().map(|pipe| pipe.write(unsaid)) {
        Some(Ok(written)) => {
            *unsaid = unsaid.get(written..).unwrap_or_default();
            true
        }
        Some(Err(error)) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        None => false,
    }
}

/// Reads all that is there, and keeps of it what makes `said` no longer than `max`; `false` at the end.
fn read(pipe: &mut Option<impl Read>, said: &mut Vec<u8>, max: usize) -> io::Result<bool> {
    let Some(pipe) = pipe else { return Ok(false) };
    let mut buffer = [0; 64 << 10];
    // A pipe holds no more than that; whoever fills it at once again waits for the next turn, where time is looked at.
    for _ in 0..16 {
        match pipe.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(length) => said.extend_from_slice(&buffer[..length.min(max.saturating_sub(said.len()))]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}
