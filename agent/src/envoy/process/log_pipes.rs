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
//!
//! Envoy's lines are passed on within a budget for each kind of them: a flood of one kind must not cost
//! the agent its core, nor drop another kind, nor have journald drop the agent's own lines.

mod budget;
mod fifo;
#[cfg(any(test, fuzzing))]
pub(in crate::envoy) mod fuzz;
mod line;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use crate::bounds::Refusals;
use crate::envoy::options::Options;
use budget::Budget;
use fifo::Fifo;
use line::{Entry, Level};

/// The number of Envoy's last errors that say why it died.
const MAX_RECENT_ERRORS: usize = 3;
/// The number of characters of each.
const MAX_ERROR_CHARS: usize = 300;

/// Both FIFOs, and the budgets of what is read from them.
#[derive(Debug)]
pub(in crate::envoy) struct LogPipes {
    access: Fifo,
    errors: Fifo,
    recent_errors: Mutex<VecDeque<String>>,
    budgets: Mutex<Budgets>,
    refusals: Refusals,
}

#[derive(Debug)]
struct Budgets {
    access: Budget,
    /// The budget of Envoy's own lines below a warning.
    information: Budget,
    /// The budget of Envoy's warnings and errors.
    warnings: Budget,
}

impl LogPipes {
    /// Opens the FIFOs, which a running Envoy has already, and makes those that are not there yet.
    pub(in crate::envoy) fn open(options: &Options) -> io::Result<Self> {
        let Options { host, paths, .. } = options;
        let now = Instant::now();
        Ok(Self {
            access: Fifo::open(&host.real_path(&paths.envoy_output()))?,
            errors: Fifo::open(&host.real_path(&paths.envoy_errors()))?,
            recent_errors: Mutex::default(),
            budgets: Mutex::new(Budgets {
                access: Budget::of_access_log(options.config.access_log_rate, now),
                information: Budget::of_own_log(options.config.log_rate, now),
                warnings: Budget::of_warnings(now),
            }),
            refusals: options.refusals.clone(),
        })
    }

    /// The stdout and the stderr of an Envoy to be started.
    pub(super) fn to_stdio(&self) -> io::Result<(Stdio, Stdio)> {
        let duplicate = |fifo: &Fifo| Ok::<_, io::Error>(Stdio::from(fifo.fd.get_ref().try_clone()?));
        Ok((duplicate(&self.access)?, duplicate(&self.errors)?))
    }

    /// Logs the lines that Envoy writes, until dropped.
    pub(in crate::envoy) async fn pump(&self) -> Infallible {
        let (never, _) = tokio::join!(
            self.access.pump(|line| self.access_line(line)),
            self.errors.pump(|line| self.own_line(line))
        );
        never
    }

    /// Takes Envoy's last errors, those of what it wrote just now included.
    pub(in crate::envoy) fn take_recent_errors(&self) -> String {
        self.errors.take_available(&|line| self.own_line(line));
        let mut recent_errors = self.recent_errors.lock().unwrap_or_else(PoisonError::into_inner);
        recent_errors.drain(..).collect::<Vec<_>>().join("; ")
    }

    fn own_line(&self, line: &str) {
        let entry = Entry::parse(line);
        let is_warning = entry.level >= Level::Warning;
        let passes = self.passes(line, |budgets| {
            if is_warning {
                &mut budgets.warnings
            } else {
                &mut budgets.information
            }
        });
        if passes {
            log(&entry);
        }
        // A line in neither of Envoy's formats is not from its log: an unknown flag, a missing library.
        if entry.level >= Level::Error || entry.logger.is_empty() {
            let mut recent_errors = self.recent_errors.lock().unwrap_or_else(PoisonError::into_inner);
            if recent_errors.len() == MAX_RECENT_ERRORS {
                recent_errors.pop_front();
            }
            recent_errors.push_back(entry.message.chars().take(MAX_ERROR_CHARS).collect());
        }
    }

    fn access_line(&self, line: &str) {
        if self.passes(line, |budgets| &mut budgets.access) {
            tracing::info!(target: "envoy::access", "{line}");
        }
    }

    /// True when a line is within its budget; counts it when it is not.
    fn passes(&self, line: &str, budget: impl Fn(&mut Budgets) -> &mut Budget) -> bool {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        let passes = budget(&mut budgets).spend(line, Instant::now());
        if !passes {
            self.refusals.count("lines of Envoy", "");
        }
        passes
    }
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

#[cfg(test)]
mod tests;
