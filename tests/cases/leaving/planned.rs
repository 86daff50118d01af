//! A planned stop is no caller's business: the mesh hears of it first, and the VM serves until nobody calls it.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use e2e::calls::{Calling, Load};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::vm::{Agent, Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::Trial;
use rustix::process::Signal;

use crate::{both, note, stand_in_only};

/// Calls a second.
const RATE: u32 = 200;
/// Time for which istiod keeps a VM that has gone without a word (PILOT_WORKLOAD_ENTRY_GRACE_PERIOD), and a bit.
const GRACE: f64 = 11.0;

/// More than a stop may take in a case, which so has not waited for it.
const LONG_PROPAGATION: &str = "[control_plane]\npropagation = \"40s\"\n";

pub(super) fn trials() -> Vec<Trial> {
    [
        both(
            "SIGTERM at 200 calls a second, with a second workload: none fails",
            mesh(stopped),
        ),
        both(
            "SIGTERM at 200 calls a second, with a second workload and no probe: none fails",
            mesh(stopped_without_a_probe),
        ),
        both(
            "SIGTERM while the next agent takes over, at 200 calls a second: none fails",
            mesh(stopped_while_it_starts),
        ),
        both(
            "SIGUSR1 at 200 calls a second: the VM stays in the mesh",
            mesh(handed_over),
        ),
        both(
            "SIGTERM while istiod is dead: nobody is waited for, and the log says so",
            slow_mesh(stopped_without_istiod),
        ),
        both(
            "the start at 200 calls a second, with a second workload: none fails",
            |kind| {
                let settings = Settings {
                    application: Application::Container,
                    ..Settings::default()
                };
                with_mesh(kind, settings, arrived)
            },
        ),
        both("a second SIGTERM hastens the stop", slow_mesh(hastened)),
        both(
            "POST /drain at 200 calls a second, kill -9, the next agent, POST /drain, SIGTERM: none fails",
            mesh(drained),
        ),
        both(
            "POST /quitquitquit while /drain waits ends it for good",
            slow_mesh(quit),
        ),
    ]
    .into_iter()
    .flatten()
    .chain([stand_in_only(
        "SIGTERM where istiod takes no word on health: none of 200 calls a second fails",
        || {
            with_mesh(Kind::StandIn, Settings::default(), |mesh| {
                mesh.control_plane.stand_in()?.ignore_health();
                stopped(mesh)
            })
        },
    )])
    .collect()
}

fn mesh(case: fn(&mut Mesh) -> Result<()>) -> impl Fn(Kind) -> Result<()> + Copy + Send + 'static {
    move |kind| with_mesh(kind, Settings::default(), case)
}

/// A stop there takes longer than any case waits for.
fn slow_mesh(case: fn(&mut Mesh) -> Result<()>) -> impl Fn(Kind) -> Result<()> + Copy + Send + 'static {
    move |kind| {
        let settings = Settings {
            more: LONG_PROPAGATION.to_owned(),
            ..Settings::default()
        };
        with_mesh(kind, settings, case)
    }
}

fn stopped(mesh: &mut Mesh) -> Result<()> {
    let _second = mesh.start_second_workload()?;
    let mut agent = mesh.join()?;
    let calling = mesh.start_calls(RATE)?;
    expect_a_planned_stop(&mut agent, calling)
}

/// istiod registers the VM for healthy, and goes by its stream alone.
fn stopped_without_a_probe(mesh: &mut Mesh) -> Result<()> {
    mesh.write_bundle_without_probe()?;
    let _second = mesh.start_second_workload()?;
    let mut agent = mesh.vm.start_agent(&mesh.network)?;
    agent.wait_until_ready(&mesh.network)?;
    let calling = mesh.start_calls(RATE)?;
    expect_a_planned_stop(&mut agent, calling)
}

/// An agent that takes over is told to stop while its start asks the kernel what is there.
fn stopped_while_it_starts(mesh: &mut Mesh) -> Result<()> {
    let _second = mesh.start_second_workload()?;
    let mut agent = mesh.join()?;
    let calling = mesh.start_calls(RATE)?;
    expect_calls_of_the_vm(&calling)?;
    agent.kill()?;
    let [asked, answered] = ["asked", "answered"].map(|name| mesh.network.folder().join(name));
    let (asks, waits) = (asked.display(), answered.display());
    let nft = format!("touch {asks}; until [ -e {waits} ]; do sleep 0.02; done; exec $REAL \"$@\"");
    mesh.vm.replace_program("nft", &nft)?;
    let mut next = mesh.vm.start_agent(&mesh.network)?;
    eventually("the next agent to ask", PATIENCE, || {
        ensure!(asked.exists(), "it has not asked yet");
        Ok(())
    })?;
    next.signal(Signal::TERM)?;
    fs::write(answered, "")?;
    let status = next.wait(PATIENCE)?;
    ensure!(status.success(), "{status}");
    expect_said(&next, "the mesh sends this VM nothing any more")?;
    expect_a_planned_end(calling)
}

/// Calls go on until istiod would have found out by itself.
fn expect_a_planned_stop(agent: &mut Agent, calling: Calling) -> Result<()> {
    expect_calls_of_the_vm(&calling)?;
    agent.stop()?;
    expect_a_planned_end(calling)
}

fn expect_a_planned_end(calling: Calling) -> Result<()> {
    calling.wait_for(calling.so_far().last() + GRACE)?;
    let calls = calling.stop()?;
    note("a planned stop", &calls.to_string());
    calls.expect_all_answered()
}

/// The VM is called once its container is there, and not before.
fn arrived(mesh: &mut Mesh) -> Result<()> {
    let _second = mesh.start_second_workload()?;
    let calling = mesh.start_calls(RATE)?;
    let _agent = mesh.join()?;
    expect_calls_of_the_vm(&calling)?;
    calling.stop()?.expect_all_answered()
}

fn handed_over(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    let calling = mesh.start_calls(RATE)?;
    agent.signal(Signal::USR1)?;
    let status = agent.wait(PATIENCE)?;
    ensure!(status.success(), "{status}");
    ensure!(mesh.healthy()? == Some(true), "istiod is told that the VM leaves");
    let _next = mesh.join()?;
    calling.stop()?.expect_all_answered()?;
    // By this it will know when it may go.
    eventually("the next agent to see the VM among the endpoints", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        let clusters = status["xds"]["listed_in"].as_array();
        ensure!(
            clusters.is_some_and(|clusters| !clusters.is_empty()),
            "{}",
            status["xds"]
        );
        Ok(())
    })
}

fn stopped_without_istiod(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    mesh.kill_istiod()?;
    eventually("the loss of istiod to be seen", PATIENCE, || {
        let (status, _) = mesh.vm.status(&mesh.network)?;
        ensure!(status["xds"]["connected_to"].is_null(), "{}", status["xds"]);
        Ok(())
    })?;
    agent.stop()?;
    expect_said(
        &agent,
        "callers are not told before Envoy is drained: istiod is not reached",
    )
}

/// A VM that was drained by an agent which is killed serves nobody: the next one knows it by what was written down.
fn drained(mesh: &mut Mesh) -> Result<()> {
    let _second = mesh.start_second_workload()?;
    let mut agent = mesh.join()?;
    let calling = mesh.start_calls(RATE)?;
    expect_calls_of_the_vm(&calling)?;
    drain(mesh, &agent)?;
    agent.kill()?;
    let before = called(&calling);
    let mut next = mesh.join()?;
    eventually("calls to reach the VM again", PATIENCE, || {
        let now = called(&calling);
        ensure!(now > before + RATE as usize, "{now} after {before}");
        Ok(())
    })?;
    drain(mesh, &next)?;
    next.signal(Signal::TERM)?;
    expect_an_end_for_good(&mut next)?;
    expect_a_planned_end(calling)
}

fn drain(mesh: &Mesh, agent: &Agent) -> Result<()> {
    agent.order(&mesh.network, "/drain")?;
    eventually("Envoy to be drained", PATIENCE, || expect_said(agent, "drained Envoy"))
}

fn quit(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    agent.order(&mesh.network, "/drain")?;
    eventually("istiod to be told", PATIENCE, || expect_said(&agent, "telling istiod"))?;
    agent.order(&mesh.network, "/quitquitquit")?;
    expect_an_end_for_good(&mut agent)
}

/// The end of an agent without a unit, after which whoever restarts what fails starts no agent.
fn expect_an_end_for_good(agent: &mut Agent) -> Result<()> {
    let status = agent.wait(PATIENCE)?;
    ensure!(status.success(), "{status}");
    Ok(())
}

fn hastened(mesh: &mut Mesh) -> Result<()> {
    let mut agent = mesh.join()?;
    mesh.wait_until_called()?;
    let slow = Load {
        product: "slow-90000".to_owned(),
        deadline: Duration::from_secs(100),
        ..mesh.calls_to_the_vm()
    };
    let _in_flight = slow
        .at_rate(20, Duration::from_secs(1))
        .start(&mesh.network, Host::Pod)?;
    agent.signal(Signal::TERM)?;
    eventually("istiod to be told", PATIENCE, || {
        ensure!(agent.output().contains("telling istiod"), "it is not told yet");
        Ok(())
    })?;
    agent.stop()?;
    expect_said(&agent, "callers are not told before Envoy is drained: there is no time")
}

fn expect_said(agent: &Agent, text: &str) -> Result<()> {
    let log = agent.output();
    ensure!(log.contains(text), "the log does not say {text:?}: {log}");
    Ok(())
}

/// Waits until calls are answered by the VM.
fn expect_calls_of_the_vm(calling: &Calling) -> Result<()> {
    eventually("calls to reach the VM", PATIENCE, || {
        let of_the_vm = called(calling);
        ensure!(of_the_vm > RATE as usize, "{of_the_vm} of {}", calling.so_far());
        Ok(())
    })
}

/// The calls that the VM has answered, whose Envoy says who calls.
fn called(calling: &Calling) -> usize {
    let calls = calling.so_far();
    calls.answered().filter(|call| call.caller.is_some()).count()
}
