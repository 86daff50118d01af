//! Which process is the Envoy of this run directory.
//!
//! Its pid, its start time and what it was started with are recorded once it runs. An agent that died before it recorded
//! leaves an Envoy that is found by its mark instead: our bootstrap's name on the command line of a process of Envoy's
//! user. What that file held then is not known.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::OWNER;
use super::launch::{Binary, Launch};
use crate::config::PathsConfig;
use crate::host::Host;
use crate::supervise::{Process, is_running, start_time};

/// One incarnation of Envoy, and what it was started as.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// Process id.
    pub(super) pid: u32,
    /// Clock ticks after boot.
    start_time: u64,
    /// Program and arguments.
    command_line: Vec<String>,
    /// What file it runs; not known of another user's process, which only who may trace it can tell.
    binary: Option<Binary>,
    /// The bootstrap's text; absent when it is not known.
    bootstrap: Option<String>,
}

impl Record {
    /// The process that `launch` was just started as.
    pub(super) fn of(pid: u32, launch: &Launch, binary: Binary) -> Result<Self> {
        Ok(Self {
            pid,
            start_time: start_time(pid).context("failed to tell when Envoy started")?,
            command_line: launch.command_line.clone(),
            binary: Some(binary),
            bootstrap: Some(launch.bootstrap.clone()),
        })
    }

    pub(super) fn write(&self, host: &Host, paths: &PathsConfig) -> Result<()> {
        let text = serde_json::to_string(self).context("failed to write Envoy's record")?;
        host.write(&paths.envoy_record(), &text, 0o600, None)
            .context("failed to record Envoy")
    }

    /// What it runs.
    pub(super) fn program(&self) -> Option<PathBuf> {
        self.command_line.first().map(PathBuf::from)
    }

    /// A handle on the process; `None` when it has ended.
    pub(super) fn open(&self) -> Option<Process> {
        Process::find(self.pid, self.start_time)
    }

    /// Whether it still runs, as Envoy's user.
    pub(super) fn is_live(&self) -> bool {
        is_running(self.pid, self.start_time) && user_of(self.pid) == Some(OWNER.uid)
    }

    /// The bootstrap that it was started with; `None` when that is not known.
    pub(super) fn bootstrap(&self) -> Option<&str> {
        self.bootstrap.as_deref()
    }

    /// Why `launch` needs another process than this one; `None` when this one is what it would start.
    pub(super) fn differs_from(&self, launch: &Launch) -> Option<&'static str> {
        let program = launch.program();
        if self.command_line != launch.command_line {
            Some("its command line has changed")
        } else if Binary::at(&program).ok() != self.binary {
            Some("its program has changed")
        } else if self.bootstrap.is_none() {
            Some("it is not known which bootstrap it was started with")
        } else if self.bootstrap() != Some(&launch.bootstrap) {
            Some("its bootstrap has changed")
        } else {
            None
        }
    }
}

/// The running Envoy of this run directory: the newest, where one takes over from another.
pub(super) fn find(host: &Host, paths: &PathsConfig) -> Option<Record> {
    recorded(host, paths).or_else(|| all(host, paths).into_iter().next())
}

/// Whether the process with this pid is a running Envoy of this run directory.
pub(super) fn is_ours(host: &Host, paths: &PathsConfig, pid: u32) -> bool {
    running_with(&host.real_path(&paths.bootstrap()), pid).is_some()
}

/// All running Envoys of this run directory, the newest first, as their processes tell.
pub(super) fn all(host: &Host, paths: &PathsConfig) -> Vec<Record> {
    let bootstrap = host.real_path(&paths.bootstrap());
    let pids = fs::read_dir("/proc").into_iter().flatten();
    let pids = pids.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<Record> = pids.filter_map(|pid| running_with(&bootstrap, pid)).collect();
    found.sort_by_key(|record| std::cmp::Reverse((record.start_time, record.pid)));
    found
}

fn recorded(host: &Host, paths: &PathsConfig) -> Option<Record> {
    let text = host.read_if_present(&paths.envoy_record()).ok()??;
    match serde_json::from_str::<Record>(&text) {
        Ok(record) => record.is_live().then_some(record),
        Err(error) => {
            tracing::warn!("{}: is no record of Envoy: {error}", paths.envoy_record().display());
            None
        }
    }
}

fn running_with(bootstrap: &Path, pid: u32) -> Option<Record> {
    if user_of(pid) != Some(OWNER.uid) {
        return None;
    }
    let command_line = arguments(&fs::read(format!("/proc/{pid}/cmdline")).ok()?);
    if !reads(&command_line, bootstrap) {
        return None;
    }
    let record = Record {
        pid,
        start_time: start_time(pid).ok()?,
        command_line,
        binary: Binary::at(Path::new(&format!("/proc/{pid}/exe"))).ok(),
        bootstrap: None,
    };
    record.is_live().then_some(record)
}

/// Whether this is an Envoy's command line with that bootstrap.
pub(super) fn reads(command_line: &[String], bootstrap: &Path) -> bool {
    let bootstrap = bootstrap.to_string_lossy();
    command_line
        .windows(2)
        .any(|pair| pair[0] == "-c" && pair[1] == bootstrap)
}

/// /proc/PID/cmdline: each argument ends with a NUL.
pub(super) fn arguments(bytes: &[u8]) -> Vec<String> {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    bytes
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect()
}

/// The user that a process runs as: the effective one of /proc/PID/status.
fn user_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    ids.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_command_line_is_ours_by_its_bootstrap() {
        let ours = Path::new("/run/istio-vm-agent/envoy.json");
        let is_ours = |bytes: &[u8]| reads(&arguments(bytes), ours);
        assert!(is_ours(
            b"/usr/local/bin/envoy\0-c\0/run/istio-vm-agent/envoy.json\0-l\0info\0"
        ));
        assert!(!is_ours(b"/usr/local/bin/envoy\0-c\0/etc/envoy.json\0"));
        assert!(!is_ours(b"vi\0/run/istio-vm-agent/envoy.json\0"));
        assert!(!is_ours(b""));
    }

    #[test]
    fn a_live_process_of_another_user_is_never_ours() {
        let pid = std::process::id();
        let record = Record {
            pid,
            start_time: start_time(pid).unwrap(),
            command_line: vec![],
            binary: Binary::at(Path::new("/proc/self/exe")).ok(),
            bootstrap: None,
        };
        assert_eq!(record.is_live(), user_of(pid) == Some(OWNER.uid));
    }

    #[test]
    fn a_stale_or_broken_record_is_ignored() {
        let root = tempfile::tempdir().unwrap();
        let (host, paths) = (Host::new(root.path(), crate::host::System), PathsConfig::default());
        host.make_directory(&paths.run, 0o755, None).unwrap();
        let own = std::process::id();
        let binary = Binary::at(Path::new("/proc/self/exe")).ok();
        let stale = Record {
            pid: own,
            start_time: start_time(own).unwrap() + 1,
            command_line: vec![],
            binary,
            bootstrap: None,
        };
        for text in ["", "{", "{\"pid\":1}", &serde_json::to_string(&stale).unwrap()] {
            host.write(&paths.envoy_record(), text, 0o600, None).unwrap();
            assert_eq!(recorded(&host, &paths), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = reads(&arguments(&bytes), Path::new("/x"));
        }
    }
}
