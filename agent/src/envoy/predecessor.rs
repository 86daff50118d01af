//! The Envoy that another one takes over from.
//!
//! Both listen on the same ports (SO_REUSEPORT, which Envoy's listeners have unless they are told otherwise). The old one
//! serves until its successor is ready; then it accepts no more, and ends when its callers have left it.

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::record::{self, Record};
use super::{Admin, Options, TERM_GRACE, admin, drain};
use crate::facts::{EnvoyState, Membership};
use crate::supervise::Process;

/// A running Envoy that is not to run on.
pub(super) struct Predecessor {
    record: Record,
    process: Process,
}

/// Has the Envoy that serves make way for one that is to be started: it keeps its callers, and its admin interface moves
/// aside. Any other is ended, and so is one that could not be told to go later. The pid of the one that stays.
pub(super) async fn make_way(options: &Options, serving: Option<u32>) -> Result<Option<u32>> {
    let mut staying = None;
    for envoy in all_but(options, None) {
        let pid = envoy.record.pid;
        if Some(pid) == serving && step_aside(options, pid).await? {
            staying = Some(pid);
        } else {
            envoy.end().await?;
        }
    }
    Ok(staying)
}

/// Undoes that for an Envoy which is to stay after all: the agent died before the other one was started.
pub(super) async fn come_back(options: &Options, pid: u32) -> Result<()> {
    let (admin, aside) = (options.paths.admin_socket(), options.paths.admin_socket_aside());
    if admin::server_of(&options.host.real_path(&aside)).await == Some(pid) {
        options.host.rename(&aside, &admin)?;
    }
    Ok(())
}

/// Whether the Envoy's admin interface is where its successor's won't be.
async fn step_aside(options: &Options, pid: u32) -> Result<bool> {
    let (admin, aside) = (options.paths.admin_socket(), options.paths.admin_socket_aside());
    if admin::server_of(&options.host.real_path(&admin)).await == Some(pid) {
        options.host.rename(&admin, &aside)?;
        return Ok(true);
    }
    Ok(admin::server_of(&options.host.real_path(&aside)).await == Some(pid))
}

/// All Envoys of this run directory but one, the newest first.
fn all_but(options: &Options, pid: Option<u32>) -> Vec<Predecessor> {
    let records = record::all(&options.host, &options.paths).into_iter();
    let open = |record: Record| {
        Some(Predecessor {
            process: record.open()?,
            record,
        })
    };
    records
        .filter(|record| Some(record.pid) != pid)
        .filter_map(open)
        .collect()
}

impl Predecessor {
    /// The one that `successor` takes over from; should there be more, the older ones are ended.
    pub(super) async fn of(options: &Options, successor: &Process) -> Result<Option<Self>> {
        let mut others = all_but(options, Some(successor.pid())).into_iter();
        let newest = others.next();
        for other in others {
            other.end().await?;
        }
        Ok(newest)
    }

    /// Its admin interface, beside its successor's.
    fn admin(options: &Options) -> Admin {
        Admin::new(options.host.real_path(&options.paths.admin_socket_aside()))
    }

    /// Whether it is still there.
    pub(super) fn is_running(&self) -> bool {
        self.record.is_live()
    }

    /// Ends it once `state` says that another one is ready, its callers first.
    pub(super) async fn see_off(
        &self,
        options: &Options,
        membership: &Membership,
        state: &watch::Sender<EnvoyState>,
    ) -> Result<()> {
        let old = self.record.pid;
        let mut states = state.subscribe();
        tokio::select! {
            _ = self.process.ended() => return Ok(()),
            _ = states.wait_for(|state| matches!(state, EnvoyState::Ready { pid, .. } if *pid != old)) => {}
        }
        let (admin, limits) = (Self::admin(options), drain::Limits::of(&options.config, membership));
        tokio::select! {
            _ = self.process.ended() => {}
            () = drain::hand_over(&admin, limits) => {}
        }
        self.end().await?;
        options.host.remove(&options.paths.admin_socket_aside())?;
        tracing::info!(pid = old, "the Envoy before has ended");
        Ok(())
    }

    async fn end(&self) -> Result<()> {
        let ended = self.process.terminate(TERM_GRACE).await;
        ended.with_context(|| format!("failed to end Envoy, pid {}", self.record.pid))
    }
}
