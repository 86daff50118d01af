//! Traffic outlives what is killed, and never passes the mesh by.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::calls::Calling;
use e2e::istiod::PeerAuthentication;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::process::Process;
use e2e::vm::Settings;
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use rustix::process::{Signal, kill_process};

use crate::{both, real_only};

pub(crate) fn trials() -> Vec<Trial> {
    [
        both(
            "the agent is killed at 200 calls a second for 30 s: none fails",
            |kind| with_mesh(kind, Settings::default(), agent_killed),
        ),
        both(
            "the agent is killed and stays away for longer than istiod waits, at 200 calls a second: none fails",
            |kind| with_mesh(kind, Settings::default(), agent_away),
        ),
        both("Envoy is killed: calls work again within 2 s", |kind| {
            with_mesh(kind, Settings::default(), envoy_killed)
        }),
        both(
            "istiod is killed and started at 200 calls a second: none fails",
            |kind| with_mesh(kind, Settings::default(), istiod_killed),
        ),
        both(
            "STRICT: no plaintext answer while agent, Envoy, then both are killed",
            |kind| with_mesh(kind, Settings::default(), no_plaintext),
        ),
    ]
    .into_iter()
    .flatten()
    .chain([real_only(
        "real istiod: the agent is stopped for 60 s at 200 calls a second: none fails",
        || with_mesh(Kind::Real, Settings::default(), agent_stopped),
    )])
    .collect()
}

fn agent_killed(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    let calling = mesh.start_calls(200)?;
    calling.wait_for(10.0)?;
    agent.kill()?;
    // Systemd's RestartSec=.
    calling.wait_for(11.0)?;
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    agent.wait_until_ready(&mesh.network)?;
    calling.wait_for(30.0)?;
    calling.stop()?.expect_all_answered()?;
    ensure!(
        mesh.vm.envoy_pid(&mesh.network)? == envoy,
        "the new agent has another Envoy"
    );
    mesh.wait_until_healthy(true)
}

/// Time for which istiod keeps a VM without a stream (PILOT_WORKLOAD_ENTRY_GRACE_PERIOD), and a bit.
const GRACE: f64 = 13.0;
/// The same, and before it that for which istiod waits for a word of a stream that is open (keepalive, 30 s and 10 s).
const HUNG: f64 = 60.0;

fn agent_away(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let (standby, calling) = stand_by(mesh)?;
    agent.kill()?;
    calling.wait_for(calling.so_far().last() + GRACE)?;
    expect_said(&standby, "the agent has said nothing")?;
    let _next = mesh.join()?;
    expect_said(&standby, "the agent is back")?;
    calling.wait_for(calling.so_far().last() + 2.0)?;
    calling.stop()?.expect_all_answered()
}

fn agent_stopped(mesh: &mut Mesh) -> Result<()> {
    let agent = mesh.join()?;
    let (standby, calling) = stand_by(mesh)?;
    agent.signal(Signal::STOP)?;
    calling.wait_for(calling.so_far().last() + HUNG)?;
    agent.signal(Signal::CONT)?;
    expect_said(&standby, "the agent is back")?;
    calling.wait_for(calling.so_far().last() + GRACE)?;
    calling.stop()?.expect_all_answered()
}

/// The standby, which has heard from the agent, and calls.
fn stand_by(mesh: &Mesh) -> Result<(Process, Calling)> {
    let standby = mesh.vm.start_xds_standby(&mesh.network)?;
    expect_said(&standby, "standing by")?;
    let calling = mesh.start_calls(200)?;
    calling.wait_for(1.0)?;
    Ok((standby, calling))
}

fn expect_said(standby: &Process, text: &str) -> Result<()> {
    eventually(format!("the standby to say {text:?}"), PATIENCE, || {
        let log = standby.output();
        ensure!(log.contains(text), "{log}");
        Ok(())
    })
}

fn istiod_killed(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    let calling = mesh.start_calls(200)?;
    calling.wait_for(3.0)?;
    mesh.kill_istiod()?;
    connected(mesh, false)?;
    calling.wait_for(calling.so_far().last() + 3.0)?;
    mesh.start_istiod()?;
    connected(mesh, true)?;
    mesh.wait_until_healthy(true)?;
    calling.stop()?.expect_all_answered()
}

/// Waits until `status` says so.
fn connected(mesh: &Mesh, wanted: bool) -> Result<()> {
    eventually(format!("status to say connected: {wanted}"), PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let running = status["agent"]["state"] == "running";
        ensure!(
            running && status["xds"]["connected_to"].is_string() == wanted,
            "{status}"
        );
        Ok(())
    })
}

/// A busy machine may make any single restart slow, so the best of a few counts.
fn envoy_killed(mesh: &mut Mesh) -> Result<()> {
    const PROMISED: f64 = 2.0;
    const TRIES: usize = 3;
    let _agent = mesh.join()?;
    let calling = mesh.start_calls(200)?;
    let mut gaps = Vec::new();
    while gaps.len() < TRIES && gaps.last().is_none_or(|gap| *gap > PROMISED) {
        calling.wait_for(calling.so_far().last() + 2.0)?;
        gaps.push(gap_after_kill(mesh, &calling)?);
    }
    let calls = calling.stop()?;
    let kept = gaps.last().is_some_and(|gap| *gap <= PROMISED);
    ensure!(kept, "calls failed for {gaps:.2?} s after the kills: {calls}");
    Ok(())
}

/// Kills Envoy; the seconds until the last call that fails for that, once a second's calls were answered again.
fn gap_after_kill(mesh: &Mesh, calling: &Calling) -> Result<f64> {
    let killed_at = calling.so_far().last();
    kill_process(mesh.vm.envoy_pid(&mesh.network)?, Signal::KILL)?;
    eventually("calls to work again", PATIENCE, || {
        let calls = calling.so_far();
        let failed = calls.failed().map(|call| call.at).filter(|at| *at > killed_at);
        let last = failed.fold(None, |last: Option<f64>, at| Some(last.map_or(at, |last| last.max(at))));
        let last = last.context("no call has failed: was Envoy killed at all?")?;
        ensure!(calls.last() > last + 1.0, "{calls}");
        Ok(last - killed_at)
    })
}

fn no_plaintext(mesh: &mut Mesh) -> Result<()> {
    mesh.set_peer_authentication(PeerAuthentication::Strict)?;
    let mut agent = mesh.join()?;
    let plaintext = mesh.plaintext_calls_to_the_vm();
    eventually("STRICT to be in force", PATIENCE, || {
        let calls = plaintext
            .clone()
            .at_rate(10, Duration::from_secs(1))
            .run(&mesh.network, Host::Outside)?;
        ensure!(calls.answered().next().is_none(), "{calls}");
        Ok(())
    })?;
    let calling = plaintext.until_stopped(10).start(&mesh.network, Host::Outside)?;

    calling.wait_for(2.0)?;
    agent.kill()?;
    calling.wait_for(4.0)?;
    let mut agent = mesh.join()?;

    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    kill_process(envoy, Signal::KILL)?;
    eventually("another Envoy", PATIENCE, || {
        ensure!(mesh.vm.envoy_pid(&mesh.network)? != envoy, "it is the killed one");
        agent.wait_until_ready(&mesh.network)
    })?;

    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    agent.kill()?;
    kill_process(envoy, Signal::KILL)?;
    calling.wait_for(calling.so_far().last() + 2.0)?;
    let _agent = mesh.join()?;
    let calls = calling.stop()?;
    ensure!(calls.answered().next().is_none(), "{calls}");

    // The silence above is worth something only if the same VM answers those who may call.
    mesh.expect_calls().map(drop)
}
