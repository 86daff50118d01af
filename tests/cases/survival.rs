//! Traffic outlives what is killed, and never passes the mesh by.

use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::calls::{Calling, Calls};
use e2e::istiod::PeerAuthentication;
use e2e::mesh::{Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::Settings;
use libtest_mimic::Trial;
use rustix::process::{Signal, kill_process};

use crate::both;

pub(crate) fn trials() -> Vec<Trial> {
    [
        both("the agent is killed at 200 calls a second: none fails", |kind| {
            with_mesh(kind, Settings::default(), agent_killed)
        }),
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
    .collect()
}

fn agent_killed(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    let calling = begin(mesh)?;
    wait_for(&calling, 10.0)?;
    agent.kill()?;
    // Systemd's RestartSec=.
    wait_for(&calling, 11.0)?;
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    agent.wait_until_ready(&mesh.network)?;
    calling.finish()?.expect_all_answered()?;
    ensure!(
        mesh.vm.envoy_pid(&mesh.network)? == envoy,
        "the new agent has another Envoy"
    );
    mesh.wait_until_healthy(true)
}

fn istiod_killed(mesh: &mut Mesh) -> Result<()> {
    let _agent = mesh.join()?;
    let calling = begin(mesh)?;
    wait_for(&calling, 3.0)?;
    mesh.kill_istiod()?;
    wait_for(&calling, 6.0)?;
    mesh.start_istiod()?;
    mesh.wait_until_healthy(true)?;
    calling.finish()?.expect_all_answered()
}

fn envoy_killed(mesh: &mut Mesh) -> Result<()> {
    const AGAIN: f64 = 2.0;
    let _agent = mesh.join()?;
    let calling = begin_for(mesh, Duration::from_secs(10))?;
    wait_for(&calling, 3.0)?;
    let killed_at = last(&calling.so_far());
    kill_process(mesh.vm.envoy_pid(&mesh.network)?, Signal::KILL)?;
    let calls = calling.finish()?;
    let late: Vec<_> = calls.failed().filter(|call| call.at > killed_at + AGAIN).collect();
    ensure!(
        late.is_empty(),
        "calls fail {AGAIN} s after the kill at {killed_at:.2} s: {calls}"
    );
    ensure!(
        calls.failed().next().is_some(),
        "no call failed: was Envoy killed at all?"
    );
    Ok(())
}

fn no_plaintext(mesh: &mut Mesh) -> Result<()> {
    mesh.set_peer_authentication(PeerAuthentication::Strict)?;
    let mut agent = mesh.join()?;
    let plaintext = mesh.plaintext_calls_to_the_vm();
    e2e::eventually("STRICT to be in force", Duration::from_secs(10), || {
        let calls = plaintext
            .clone()
            .at_rate(10, Duration::from_secs(1))
            .run(&mesh.network, Host::Outside)?;
        ensure!(calls.answered().next().is_none(), "{calls}");
        Ok(())
    })?;
    let calling = plaintext
        .at_rate(10, Duration::from_secs(24))
        .start(&mesh.network, Host::Outside)?;

    wait_for(&calling, 2.0)?;
    agent.kill()?;
    wait_for(&calling, 4.0)?;
    let mut agent = mesh.join()?;

    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    kill_process(envoy, Signal::KILL)?;
    e2e::eventually("another Envoy", Duration::from_secs(10), || {
        ensure!(mesh.vm.envoy_pid(&mesh.network)? != envoy, "it is the killed one");
        agent.wait_until_ready(&mesh.network)
    })?;

    let envoy = mesh.vm.envoy_pid(&mesh.network)?;
    agent.kill()?;
    kill_process(envoy, Signal::KILL)?;
    let seen = last(&calling.so_far());
    wait_for(&calling, seen + 2.0)?;
    let _agent = mesh.join()?;
    let calls = calling.finish()?;
    ensure!(calls.answered().next().is_none(), "{calls}");

    // The silence above is worth something only if the same VM answers those who may call.
    mesh.calls_to_the_vm()
        .run(&mesh.network, Host::Pod)?
        .expect_all_answered()
}

/// 200 calls a second for 30 s, once the first ones were answered.
fn begin(mesh: &Mesh) -> Result<Calling> {
    begin_for(mesh, Duration::from_secs(30))
}

fn begin_for(mesh: &Mesh, duration: Duration) -> Result<Calling> {
    let load = mesh.calls_to_the_vm();
    e2e::eventually("a first answer", Duration::from_secs(10), || {
        load.clone()
            .at_rate(5, Duration::from_secs(1))
            .run(&mesh.network, Host::Pod)?
            .expect_all_answered()
    })?;
    load.at_rate(200, duration).start(&mesh.network, Host::Pod)
}

/// Until calls have been made for so many seconds: the load is the clock of these cases.
fn wait_for(calling: &Calling, seconds: f64) -> Result<()> {
    e2e::eventually(
        format!("{seconds} s of calls"),
        Duration::from_secs_f64(seconds + 20.0),
        || {
            let so_far = last(&calling.so_far());
            ensure!(so_far >= seconds, "{so_far} s so far");
            Ok(())
        },
    )
}

fn last(calls: &Calls) -> f64 {
    calls.0.iter().map(|call| call.at).fold(0.0, f64::max)
}
