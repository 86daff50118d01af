//! The hand-over from one Envoy to another.
//!
//! Both listen on the same ports (SO_REUSEPORT, which Envoy's listeners have unless they are told otherwise). The old
//! one serves until its successor is ready; then it accepts no more, and ends when its callers have left it.

use std::path::Path;

use anyhow::Result;
use tokio::sync::Mutex;

use super::drain;
use crate::envoy::admin::{self, Admin};
use crate::envoy::options::Options;
use crate::envoy::process::EnvoyProcess;
use crate::envoy::state::EnvoyStatePublisher;
use crate::facts::Membership;

/// Asks the running Envoys which of them serves: the newest or, while that one is not ready, the one before it. One that was
/// drained is ready, and serves nobody.
pub(super) async fn serving_pid(options: &Options) -> Option<u32> {
    let mut running = EnvoyProcess::all(&options.host, &options.paths);
    running.retain(|envoy| !envoy.record.drained);
    let newest = running.first()?.pid();
    if is_ready(options, &options.paths.admin_socket(), newest).await {
        return Some(newest);
    }
    // One that is alone is never taken for this: with its socket aside it may have been told to go already.
    let old = running.get(1)?.pid();
    let serves = is_ready(options, &options.paths.admin_socket_aside(), old).await;
    serves.then_some(old)
}

async fn is_ready(options: &Options, socket: &Path, pid: u32) -> bool {
    let socket = options.host.real_path(socket);
    if admin::server_of(&socket).await != Some(pid) {
        return false;
    }
    let readiness = Admin::new(socket).readiness().await;
    readiness.is_ok_and(|readiness| readiness.is_ready())
}

/// Has the Envoy `serving` make way for one that is to be started: it keeps its callers, and its admin socket moves
/// aside. Every other one is ended, and so is one without an admin socket, which could not be told to go later. Returns
/// the pid of the one that stays.
pub(super) async fn make_way(options: &Options, serving: Option<u32>) -> Result<Option<u32>> {
    let (mut staying, mut leaving) = (None, Vec::new());
    for envoy in EnvoyProcess::all(&options.host, &options.paths) {
        let pid = envoy.pid();
        if Some(pid) == serving && move_admin_socket_aside(options, pid).await? {
            staying = Some(pid);
        } else {
            leaving.push(envoy);
        }
    }
    EnvoyProcess::end_all(&leaving).await?;
    Ok(staying)
}

/// Moves the admin socket of an Envoy that stays after all back to its place: the new one was not started, or has
/// ended.
pub(super) async fn move_admin_socket_back(options: &Options, pid: u32) -> Result<()> {
    let (admin, aside) = (options.paths.admin_socket(), options.paths.admin_socket_aside());
    if admin::server_of(&options.host.real_path(&aside)).await == Some(pid) {
        options.host.rename(&aside, &admin)?;
    }
    Ok(())
}

/// Moves the admin socket of an Envoy to where its successor's won't be; false when it serves none in either place.
async fn move_admin_socket_aside(options: &Options, pid: u32) -> Result<bool> {
    let (admin, aside) = (options.paths.admin_socket(), options.paths.admin_socket_aside());
    if admin::server_of(&options.host.real_path(&admin)).await == Some(pid) {
        options.host.rename(&admin, &aside)?;
        return Ok(true);
    }
    Ok(admin::server_of(&options.host.real_path(&aside)).await == Some(pid))
}

/// The Envoy that `successor` takes over from; should there be more, the older ones are ended.
pub(super) async fn old_envoy_of(options: &Options, successor: u32) -> Result<Option<EnvoyProcess>> {
    let mut others = EnvoyProcess::all(&options.host, &options.paths);
    others.retain(|envoy| envoy.pid() != successor);
    let older = others.split_off(others.len().min(1));
    EnvoyProcess::end_all(&older).await?;
    Ok(others.pop())
}

/// Waits until another Envoy serves, then drains `old`, ends it and removes its admin socket; holds `draining` from then on.
/// Completes at once when `old` ends by itself.
pub(super) async fn drain_old(
    old: &EnvoyProcess,
    options: &Options,
    membership: &Membership,
    state: &EnvoyStatePublisher,
    draining: &Mutex<()>,
) -> Result<()> {
    tokio::select! {
        () = old.ended() => return Ok(()),
        () = state.wait_for_another(old.pid()) => {}
    }
    let _draining = draining.lock().await;
    drain::drain_handed_over(old, options, membership).await;
    old.end().await?;
    options.host.remove(&options.paths.admin_socket_aside())?;
    tracing::info!(pid = old.pid(), "the Envoy before has ended");
    Ok(())
}
