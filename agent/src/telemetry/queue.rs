//! The log's lines on their way to their reader: whoever logs waits for no journald that hangs and no full pipe.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use nix::sys::signal::SigSet;

use crate::bounds::Refusals;

/// Most bytes that wait for the reader: some thousands of lines.
const MAX_SIZE: usize = 1 << 20;
/// Name of lost lines among the refusals.
const LOST: &str = "log lines";

/// Takes lines, and has a thread of its own write them. What finds no room is lost and counted.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    refusals: Refusals,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    size: usize,
    /// True while a line that is in `lines` no more is being written.
    is_writing: bool,
    /// Number of lines that were lost and not told of yet.
    lost: u64,
}

impl Queue {
    /// Writes each line to `sink` in one piece. `tell` hears how many were lost, once the others are written.
    pub(super) fn start(
        mut sink: impl Write + Send + 'static,
        refusals: Refusals,
        tell: impl Fn(u64) + Send + 'static,
    ) -> io::Result<Self> {
        let queue = Self(Arc::new(Shared {
            waiting: Mutex::default(),
            changed: Condvar::new(),
            refusals,
        }));
        let writer = queue.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            // They are for the threads that heed them: this one outlives the runtime.
            let _ = SigSet::all().thread_block();
            loop {
                let line = writer.next();
                let written = sink.write_all(&line);
                writer.written(written.is_ok()).into_iter().for_each(&tell);
            }
        })?;
        Ok(queue)
    }

    /// Waits until all lines are written, for `limit` at most.
    pub(super) fn flush(&self, limit: Duration) {
        let is_busy = |waiting: &mut Waiting| waiting.is_writing || !waiting.lines.is_empty();
        drop(self.0.changed.wait_timeout_while(self.waiting(), limit, is_busy));
    }

    /// The next line, once there is one.
    fn next(&self) -> Vec<u8> {
        let mut waiting = self.waiting();
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.size -= line.len();
                waiting.is_writing = true;
                return line;
            }
            waiting = self.0.changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Notes what became of a line; gives how many were lost, when there is room to tell it.
    fn written(&self, is_written: bool) -> Option<u64> {
        let mut waiting = self.waiting();
        waiting.is_writing = false;
        if !is_written {
            self.lost(&mut waiting);
        }
        self.0.changed.notify_all();
        let is_time = is_written && waiting.lines.is_empty() && waiting.lost > 0;
        is_time.then(|| std::mem::take(&mut waiting.lost))
    }

    fn lost(&self, waiting: &mut Waiting) {
        waiting.lost = waiting.lost.saturating_add(1);
        // Without a line of its own, which would be lost too.
        self.0.refusals.add(LOST, "");
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.waiting();
        if waiting.size + line.len() > MAX_SIZE {
            self.lost(&mut waiting);
        } else {
            waiting.size += line.len();
            waiting.lines.push_back(line.to_vec());
            self.0.changed.notify_all();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc;

    use tracing_subscriber::layer::SubscriberExt;
    use tracing_subscriber::registry::Registry;

    use super::super::journal::{Journal, Socket};
    use super::*;

    #[test]
    fn log_that_nobody_reads_keeps_nobody_waiting_and_tells_what_was_lost() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let journald = UnixDatagram::bind(&path).unwrap();
        let refusals = Refusals::default();
        let (tell, told) = mpsc::channel();
        let sink = Socket::to(path).unwrap();
        let queue = Queue::start(sink, refusals.clone(), move |lost| tell.send(lost).unwrap()).unwrap();
        let layer = Journal::new(queue.clone());
        let long = "x".repeat(60_000);
        tracing::subscriber::with_default(Registry::default().with(layer), || {
            while refusals.all().is_empty() {
                tracing::warn!("{long}");
            }
        });
        queue.flush(Duration::ZERO);
        assert!(told.try_recv().is_err(), "there is no room to tell it yet");
        thread::spawn(move || while journald.recv(&mut [0]).is_ok() {});
        let lost = told.recv_timeout(Duration::from_secs(20)).unwrap();
        let refused = refusals.all();
        assert_eq!((lost, refused[0].what.as_str()), (refused[0].count, LOST));
    }
}
