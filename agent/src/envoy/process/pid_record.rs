//! One Envoy that was started: which process it is, and as what it was started.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::binary::Binary;
use super::launch_spec::LaunchSpec;
use crate::envoy::options::ENVOY_USER;
use crate::supervise::{Process, is_running, start_time};

/// One incarnation of Envoy, and what it was started as.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::envoy) struct PidRecord {
    /// Process id.
    pub(in crate::envoy) pid: u32,
    /// Clock ticks after boot.
    start_time: u64,
    /// Program and arguments.
    command_line: Vec<String>,
    /// What file it runs; not known of another user's process, which only who may trace it can tell.
    binary: Option<Binary>,
    /// The bootstrap's text; absent when it is not known.
    bootstrap: Option<String>,
}

/// What an Envoy is to be started as.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingStart {
    /// The unit; absent: it is a process of the agent's.
    pub(super) unit: Option<String>,
    /// Program and arguments.
    pub(super) command_line: Vec<String>,
    /// What file it runs.
    pub(super) binary: Binary,
    /// The bootstrap's text.
    pub(super) bootstrap: String,
}

impl PidRecord {
    /// The process that was just started as `pending` says.
    pub(super) fn new(pid: u32, pending: &PendingStart) -> Result<Self> {
        Ok(Self {
            command_line: pending.command_line.clone(),
            binary: Some(pending.binary),
            bootstrap: Some(pending.bootstrap.clone()),
            ..Self::of_unknown_start(pid)?
        })
    }

    /// A process of which it is not known as what it was started.
    pub(super) fn of_unknown_start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            start_time: start_time(pid).context("failed to tell when Envoy started")?,
            command_line: Vec::new(),
            binary: None,
            bootstrap: None,
        })
    }

    /// Of two, the younger one's is greater.
    pub(super) fn started_at(&self) -> (u64, u32) {
        (self.start_time, self.pid)
    }

    /// What it runs.
    pub(in crate::envoy) fn program(&self) -> Option<PathBuf> {
        self.command_line.first().map(PathBuf::from)
    }

    /// A handle on the process; `None` when it has ended.
    pub(super) fn open(&self) -> Option<Process> {
        Process::find(self.pid, self.start_time)
    }

    /// Whether it still runs, as Envoy's user.
    pub(super) fn is_live(&self) -> bool {
        is_running(self.pid, self.start_time) && user_of(self.pid) == Some(ENVOY_USER.uid)
    }

    /// The bootstrap that it was started with; `None` when that is not known.
    pub(in crate::envoy) fn bootstrap(&self) -> Option<&str> {
        self.bootstrap.as_deref()
    }

    /// Why `spec` needs another process than this one; `None` when this one is what it would start.
    pub(in crate::envoy) fn differs_from(&self, spec: &LaunchSpec) -> Option<&'static str> {
        let program = spec.program();
        if self.command_line != spec.command_line {
            Some("its command line has changed")
        } else if Binary::at(&program).ok() != self.binary {
            Some("its program has changed")
        } else if self.bootstrap.is_none() {
            Some("it is not known which bootstrap it was started with")
        } else if self.bootstrap() != Some(&spec.bootstrap) {
            Some("its bootstrap has changed")
        } else {
            None
        }
    }
}

/// The user that a process runs as: the effective one of /proc/PID/status.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_live_process_of_another_user_is_never_ours() {
        let record = PidRecord::of_unknown_start(std::process::id()).unwrap();
        assert_eq!(record.is_live(), user_of(record.pid) == Some(ENVOY_USER.uid));
    }
}
