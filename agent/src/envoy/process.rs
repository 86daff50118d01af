//! The processes that are Envoys of this run directory: which they are, how one is started, watched and ended.

mod binary;
mod launch_spec;
pub(super) mod ledger;
pub(super) mod log_pipes;
mod pid_record;
mod spawn;
mod start;
mod unit;

use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::join_all;

use super::admin::{self, Admin};
use crate::config::PathsConfig;
use crate::host::Host;
use crate::supervise::Process;

pub use launch_spec::command_line;
pub(super) use launch_spec::{DEFAULT_DRAIN_DURATION, LaunchSpec};
pub(super) use log_pipes::LogPipes;
pub(super) use pid_record::PidRecord;
pub(super) use start::start;
pub use unit::become_envoy;

/// The time that Envoy is given to end after TERM. Its connections are gone by then, or out of time.
pub(super) const TERM_GRACE: Duration = Duration::from_secs(5);

/// An Envoy of this run directory that runs.
#[derive(Debug)]
pub(super) struct EnvoyProcess {
    pub(super) record: PidRecord,
    process: Process,
}

impl EnvoyProcess {
    /// All Envoys that run, the newest first.
    pub(super) fn all(host: &Host, paths: &PathsConfig) -> Vec<Self> {
        ledger::all(host, paths).into_iter().filter_map(Self::open).collect()
    }

    /// The newest Envoy that runs.
    pub(super) fn newest(host: &Host, paths: &PathsConfig) -> Option<Self> {
        Self::open(ledger::newest(host, paths)?)
    }

    /// The processes that systemd has as instances of the unit `template`.
    pub(super) async fn of_unit(host: &Host, template: &str) -> Vec<Self> {
        let records = ledger::of_unit(host, template).await;
        records.into_iter().filter_map(Self::open).collect()
    }

    fn open(record: PidRecord) -> Option<Self> {
        let process = record.open()?;
        Some(Self { record, process })
    }

    pub(super) fn pid(&self) -> u32 {
        self.record.pid
    }

    pub(super) fn is_live(&self) -> bool {
        self.record.is_live()
    }

    /// The process, to watch it.
    pub(super) fn into_process(self) -> Process {
        self.process
    }

    /// A client of its admin interface, which is aside while another Envoy takes over from it. Fails while Envoy has
    /// none.
    pub(super) async fn admin(&self, host: &Host, paths: &PathsConfig) -> Result<Admin> {
        for socket in [paths.admin_socket(), paths.admin_socket_aside()] {
            let socket = host.real_path(&socket);
            if admin::server_of(&socket).await == Some(self.pid()) {
                return Ok(Admin::new(socket));
            }
        }
        anyhow::bail!("it has no admin interface yet")
    }

    /// Completes when the process has ended.
    pub(super) async fn ended(&self) {
        self.process.ended().await;
    }

    /// Ends several Envoys at once, because each may take its time.
    pub(super) async fn end_all(envoys: &[Self]) -> Result<()> {
        join_all(envoys.iter().map(Self::end)).await.into_iter().collect()
    }

    /// Ends the process by TERM or, when that takes longer than [`TERM_GRACE`], by KILL.
    pub(super) async fn end(&self) -> Result<()> {
        let pid = self.pid();
        let ended = self.process.terminate(TERM_GRACE).await;
        ended.with_context(|| format!("failed to end Envoy, pid {pid}"))
    }
}
