//! The record of one Envoy: its process, and the specification that it was started with.

use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::binary::Binary;
use super::launch_spec::LaunchSpec;
use crate::host::Host;
use crate::part::ENVOY_USER;
use crate::supervise::{Process, is_running, start_time};

/// One process of Envoy, and the specification that it was started with.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::envoy) struct PidRecord {
    /// The process id.
    pub(in crate::envoy) pid: u32,
    /// The process's start, in clock ticks after boot (proc(5), stat).
    start_time: u64,
    /// The program and its arguments.
    command_line: Vec<String>,
    /// The file that it runs; `None` when it is not known, which only who may trace a process can tell.
    binary: Option<Binary>,
    /// The bootstrap's text; `None` when it is not known.
    bootstrap: Option<String>,
    /// True once it was told to accept no more, for which there is no way back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::envoy) drained: bool,
}

/// An Envoy that is about to be started.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PendingStart {
    /// The unit that it is to be; `None`: a process of the agent's.
    pub(super) unit: Option<String>,
    /// The program and its arguments.
    pub(super) command_line: Vec<String>,
    /// The file that it is to run.
    pub(super) binary: Binary,
    /// The bootstrap's text.
    pub(super) bootstrap: String,
}

impl PidRecord {
    /// The record of the process that was just started as `pending` says. Fails when it has ended already.
    pub(super) fn new(pid: u32, pending: &PendingStart) -> Result<Self> {
        Ok(Self {
            command_line: pending.command_line.clone(),
            binary: Some(pending.binary),
            bootstrap: Some(pending.bootstrap.clone()),
            ..Self::of_unknown_start(pid)?
        })
    }

    /// The record of a process of whose start nothing is known.
    pub(super) fn of_unknown_start(pid: u32) -> Result<Self> {
        Ok(Self {
            pid,
            start_time: start_time(pid).context("failed to tell when Envoy started")?,
            command_line: Vec::new(),
            binary: None,
            bootstrap: None,
            drained: false,
        })
    }

    /// The order of starts: a younger process's is greater.
    pub(super) fn started_at(&self) -> (u64, u32) {
        (self.start_time, self.pid)
    }

    /// The program that it was started with.
    pub(in crate::envoy) fn program(&self) -> Option<PathBuf> {
        self.command_line.first().map(PathBuf::from)
    }

    /// A handle on the process; `None` when it has ended.
    pub(super) fn open(&self) -> Option<Process> {
        Process::find(self.pid, self.start_time)
    }

    /// True while the process runs, as Envoy's user.
    pub(super) fn is_live(&self) -> bool {
        is_running(self.pid, self.start_time) && Host::system().user_of(self.pid) == Some(ENVOY_USER.uid)
    }

    /// The bootstrap that it was started with; `None` when that is not known.
    pub(in crate::envoy) fn bootstrap(&self) -> Option<&str> {
        self.bootstrap.as_deref()
    }

    /// The reason why `spec` needs another process than this one; `None` when this one is what it would start.
    pub(in crate::envoy) fn differs_from(&self, spec: &LaunchSpec) -> Option<&'static str> {
        let program = spec.program();
        if self.drained {
            Some("it was drained, and accepts no calls any more")
        } else if self.command_line != spec.command_line {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_of_a_live_process_of_another_user_is_not_live() {
        let record = PidRecord::of_unknown_start(std::process::id()).unwrap();
        let user = Host::system().user_of(record.pid);
        assert_eq!(record.is_live(), user == Some(ENVOY_USER.uid));
    }
}
