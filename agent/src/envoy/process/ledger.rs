//! The ledger of the Envoys of this run directory: those that an agent wrote down when it started them, by pid and
//! start time, in a file that only root can write.
//!
//! Nothing else makes a process Envoy: any process of Envoy's user may have its command line and its name, one in a
//! container too. A start is written down before it is made, so that an agent which dies in between leaves to the next
//! one where to look: systemd knows the process of a unit, and Envoy's own admin socket its server.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::binary::Binary;
use super::pid_record::{PendingStart, PidRecord};
use super::unit;
use crate::config::PathsConfig;
use crate::envoy::admin;
use crate::host::{Host, OTHERS_WRITE, Read};
use crate::part::ENVOY_USER;

/// The longest ledger that is read. Most of it is the bootstraps of two Envoys and of one that is started.
const MAX_LEDGER: Read = Read::max(16 << 20);

/// Held from reading the ledger to writing it: one Envoy may be started while another is drained.
static CHANGING: Mutex<()> = Mutex::new(());

/// The ledger as it is written.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(in crate::envoy) struct Ledger {
    /// The Envoys that were started, the newest first.
    envoys: Vec<PidRecord>,
    /// The Envoy that is being started, whose process is not known yet.
    starting: Option<PendingStart>,
}

/// The documents that the file may hold.
#[derive(Debug, Deserialize, PartialEq, Serialize)]
#[serde(untagged)]
pub(in crate::envoy) enum Document {
    Ledger(Ledger),
    /// The newest Envoy alone, as earlier agents wrote it.
    Newest(PidRecord),
}

/// The newest running Envoy of this run directory.
pub(in crate::envoy) fn newest(host: &Host, paths: &PathsConfig) -> Option<PidRecord> {
    all(host, paths).into_iter().next()
}

/// All running Envoys of this run directory, the newest first.
pub(super) fn all(host: &Host, paths: &PathsConfig) -> Vec<PidRecord> {
    load(host, paths).envoys
}

/// True when the process with this pid is a running Envoy of this run directory.
pub(in crate::envoy) fn is_ours(host: &Host, paths: &PathsConfig, pid: u32) -> bool {
    all(host, paths).iter().any(|record| record.pid == pid)
}

/// The run directories of other agents whose Envoys run on this VM. A process of Envoy's user says where its bootstrap
/// is, and counts when root has written it down there.
pub(in crate::envoy) fn elsewhere(host: &Host, paths: &PathsConfig) -> Vec<PathsConfig> {
    let names = host.names_in(Path::new("/proc")).unwrap_or_default();
    let pids = names.iter().filter_map(|name| name.parse().ok());
    let mut found: Vec<PathsConfig> = Vec::new();
    for pid in pids.filter(|pid| host.user_of(*pid) == Some(ENVOY_USER.uid)) {
        let Some(run) = host.command_line(pid).as_deref().and_then(run_directory) else {
            continue;
        };
        let there = PathsConfig { run, ..paths.clone() };
        let is_known = there.run == paths.run || found.contains(&there);
        // Another VM may be a network namespace of this machine.
        let is_here = host.shares_network(pid) == Some(true);
        if !is_known && is_here && is_roots(host, &there) && is_ours(host, &there, pid) {
            found.push(there);
        }
    }
    found
}

/// The run directory that a command line of ours names: its bootstrap is in it.
fn run_directory(command_line: &str) -> Option<PathBuf> {
    let mut words = command_line.split('\0').skip_while(|word| *word != "-c");
    let bootstrap = words.nth(1)?;
    Path::new(bootstrap).parent().map(Path::to_owned)
}

/// Tells whether a run directory and the ledger in it are root's, and no links.
fn is_roots(host: &Host, paths: &PathsConfig) -> bool {
    [paths.run.clone(), paths.envoy_record()].iter().all(|path| {
        let meta = host.meta(path).ok().flatten();
        meta.is_some_and(|meta| meta.uid() == 0 && meta.mode() & OTHERS_WRITE == 0 && !meta.is_symlink())
    })
}

/// The Envoys that systemd has as instances of this unit, whatever was written down.
pub(in crate::envoy) async fn of_unit(host: &Host, template: &str) -> Vec<PidRecord> {
    let pids = main_pids(host, unit::instances(template).to_vec()).await.into_iter();
    let here = pids.filter(|pid| host.shares_network(*pid) != Some(false));
    let records = here.filter_map(|pid| PidRecord::of_unknown_start(pid).ok());
    records.filter(PidRecord::is_live).collect()
}

/// Writes down that an Envoy is about to be started.
pub(super) fn record_pending(host: &Host, paths: &PathsConfig, pending: &PendingStart) -> Result<()> {
    change(host, paths, |ledger| ledger.starting = Some(pending.clone()))
}

/// Writes down the Envoy that was started; `None`: the start failed.
pub(super) fn record_started(host: &Host, paths: &PathsConfig, started: Option<PidRecord>) -> Result<()> {
    change(host, paths, |ledger| {
        ledger.starting = None;
        started.into_iter().for_each(|record| ledger.envoys.insert(0, record));
    })
}

/// Writes down that all Envoys that run are about to accept no more, for an agent that comes although this one was about to
/// end them.
pub(in crate::envoy) fn record_drained(host: &Host, paths: &PathsConfig) -> Result<()> {
    change(host, paths, |ledger| {
        ledger.envoys.iter_mut().for_each(|record| record.drained = true);
    })
}

/// Completes the ledger of an agent that died while it started an Envoy, or that knew no ledger. `template` is the unit
/// that Envoys are started as.
pub(in crate::envoy) async fn recover(host: &Host, paths: &PathsConfig, template: Option<&str>) -> Result<()> {
    let document = read(host, paths);
    let is_whole = match &document {
        Some(document) => matches!(document, Document::Ledger(_)),
        // No Envoy was ever started here, or its record is lost.
        None => host.meta(&paths.bootstrap())?.is_none(),
    };
    let ledger = document.map(Ledger::from).unwrap_or_default();
    let mut found = Vec::new();
    if let Some(pending) = ledger.starting {
        let pid = match &pending.unit {
            Some(unit) => main_pids(host, vec![unit.clone()]).await.pop(),
            None => serving_pid(host, paths, &pending.binary).await,
        };
        found.extend(pid.and_then(|pid| PidRecord::new(pid, &pending).ok()));
    } else if is_whole {
        return Ok(());
    }
    if let (Some(template), false) = (template, is_whole) {
        found.extend(of_unit(host, template).await);
    }
    change(host, paths, |ledger| {
        ledger.starting = None;
        for record in found {
            let is_known = ledger.envoys.iter().any(|known| known.pid == record.pid);
            if !is_known && record.is_live() {
                tracing::info!(
                    pid = record.pid,
                    "found an Envoy that an earlier agent had no time to write down"
                );
                ledger.envoys.push(record);
            }
        }
    })
}

impl From<Document> for Ledger {
    /// Keeps the Envoys that still run.
    fn from(document: Document) -> Self {
        let mut ledger = match document {
            Document::Ledger(ledger) => ledger,
            Document::Newest(record) => Self {
                envoys: vec![record],
                starting: None,
            },
        };
        ledger.envoys.retain(PidRecord::is_live);
        ledger
            .envoys
            .sort_by_key(|record| std::cmp::Reverse(record.started_at()));
        ledger
    }
}

fn load(host: &Host, paths: &PathsConfig) -> Ledger {
    read(host, paths).map(Ledger::from).unwrap_or_default()
}

fn read(host: &Host, paths: &PathsConfig) -> Option<Document> {
    let document = (|| -> Result<Option<Document>> {
        let text = host.read(&paths.envoy_record(), MAX_LEDGER)?;
        let document = text.map(|text| serde_json::from_str(&text)).transpose();
        document.with_context(|| format!("{}: is no record of Envoy", paths.envoy_record().display()))
    })();
    document.unwrap_or_else(|error| {
        tracing::warn!("{error:#}");
        None
    })
}

/// Changes the file as no other task of this agent does meanwhile.
fn change(host: &Host, paths: &PathsConfig, change: impl FnOnce(&mut Ledger)) -> Result<()> {
    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut ledger = load(host, paths);
    change(&mut ledger);
    let text = serde_json::to_string(&ledger).context("failed to write Envoy's record")?;
    host.write_until_reboot(&paths.envoy_record(), &text, 0o600, None)
        .context("failed to record Envoy")
}

/// The pids of the units' main processes, by systemd.
async fn main_pids(host: &Host, units: Vec<String>) -> Vec<u32> {
    let asked = host.blocking(move |host| {
        let pids = units.iter().map(|unit| unit::main_pid(host, unit));
        Ok(pids.filter_map(|pid| pid.ok().flatten()).collect())
    });
    asked.await.unwrap_or_default()
}

/// The pid of the process that serves the admin interface, if it runs the program that was to be started.
async fn serving_pid(host: &Host, paths: &PathsConfig, binary: &Binary) -> Option<u32> {
    let pid = admin::server_of(&host.real_path(&paths.admin_socket())).await?;
    let runs = Binary::at(Path::new(&format!("/proc/{pid}/exe"))).ok()?;
    (runs == *binary).then_some(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::System;
    use crate::supervise::start_time;

    fn vm() -> (tempfile::TempDir, Host, PathsConfig) {
        let root = tempfile::tempdir().unwrap();
        let (host, paths) = (Host::new(root.path(), System), PathsConfig::default());
        host.make_directory(&paths.run, 0o755, None).unwrap();
        (root, host, paths)
    }

    #[test]
    fn ledger_that_is_stale_or_broken_is_ignored() {
        let (_root, host, paths) = vm();
        let own = std::process::id();
        let stale = format!(
            r#"{{"pid":{own},"start_time":{},"command_line":[],"binary":null,"bootstrap":null}}"#,
            start_time(own).unwrap() + 1
        );
        let listed = format!(r#"{{"envoys":[{stale}],"starting":null}}"#);
        for text in ["", "{", "{\"pid\":1}", &stale, &listed] {
            host.write(&paths.envoy_record(), text, 0o600, None).unwrap();
            assert_eq!(load(&host, &paths), Ledger::default(), "{text}");
        }
    }

    #[test]
    fn ledger_of_an_earlier_agent_is_understood() {
        let text = r#"{"pid":7,"start_time":9,"command_line":["/e"],"binary":null,"bootstrap":"{}"}"#;
        let Document::Newest(record) = serde_json::from_str(text).unwrap() else {
            panic!("taken for a ledger");
        };
        assert_eq!((record.pid, record.bootstrap()), (7, Some("{}")));
    }

    #[test]
    fn changes_at_the_same_time_lose_none_of_each_other() {
        let (_root, host, paths) = vm();
        let pending = pending();
        std::thread::scope(|scope| {
            let drains = scope.spawn(|| (0..300).for_each(|_| record_drained(&host, &paths).unwrap()));
            while !drains.is_finished() {
                record_pending(&host, &paths, &pending).unwrap();
                assert!(load(&host, &paths).starting.is_some(), "a start is lost");
                record_started(&host, &paths, None).unwrap();
            }
        });
    }

    fn pending() -> PendingStart {
        PendingStart {
            unit: None,
            command_line: vec!["/e".to_owned()],
            binary: Binary::at(Path::new("/proc/self/exe")).unwrap(),
            bootstrap: "{}".to_owned(),
        }
    }

    #[tokio::test]
    async fn ledger_forgets_what_was_never_started() {
        let (_root, host, paths) = vm();
        let pending = pending();
        record_pending(&host, &paths, &pending).unwrap();
        assert_eq!(load(&host, &paths).starting, Some(pending));
        recover(&host, &paths, None).await.unwrap();
        assert_eq!(load(&host, &paths), Ledger::default());
    }
}
