//! The program is ended while one cluster has a step and the other doesn't.

use std::fs;

use anyhow::{Context, Result, ensure};
use e2e::{PATIENCE, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::admission::Admission;
use super::desk::Desk;
use super::world::{World, end, slice};
use crate::note;

pub(super) fn interrupted() -> Result<()> {
    let world = World::start()?;
    let admission = Admission::start(&world.desk())?;
    world.done(&["apply"])?;
    // So long that the signal is there before the step is over.
    let patient = fs::read_to_string(world.file())?.replace("settle = '10ms'", "settle = '1min'");
    fs::write(world.file(), patient)?;

    admission.hold();
    let shift = world.spawn(&["shift", "20"])?;
    admission.wait_for_write()?;
    kill(Pid::from_raw(i32::try_from(shift.id())?), Signal::SIGINT)?;
    admission.allow();
    let ended = end(shift)?;
    let words = "interrupted: pods get 20 % in all clusters";
    ensure!(!ended.is_success && ended.text.contains(words), "{ended:?}");
    world.expect([80, 20])?;

    admission.hold();
    let shift = world.spawn(&["shift", "50"])?;
    admission.wait_for_write()?;
    eventually("the first cluster has it", PATIENCE, || {
        ensure!(world.weights(0)? == [50, 50], "not yet");
        Ok(())
    })?;
    kill(Pid::from_raw(i32::try_from(shift.id())?), Signal::SIGTERM)?;
    admission.refuse()?;
    let ended = end(shift)?;
    ensure!(!ended.is_success, "{ended:?}");
    for words in ["one: put back as it was", "not today"] {
        ensure!(ended.text.contains(words), "{ended:?}");
    }
    world.expect([80, 20])?;

    // Before the first write of a step nothing is written any more.
    let run = "prometheus = 'http://127.0.0.1:9090'";
    let hook = "run = { steps = [60, 100], before = ['sh', '-c', 'kill -INT $PPID'] }";
    world.write_file(hook, run)?;
    let text = fs::read_to_string(world.file())?.replace("name = 'two'", &format!("name = 'two'\n{run}"));
    fs::write(world.file(), text)?;
    world.refused(&["run"], words)?;
    world.expect([80, 20])
}

pub(super) fn killed() -> Result<()> {
    let world = World::start()?;
    let admission = Admission::start(&world.desk())?;
    let before = world.objects()?;
    in_each_step(&world.desk(), &admission)?;
    ensure!(world.objects()? == before, "an object is not as before");

    for cluster in &world.clusters {
        // What Kubernetes' controller makes of the Service when it selects the pods.
        cluster.apply(&slice("productcatalogservice"))?;
    }
    world.done(&["apply"])?;
    world.done(&["complete"])?;
    cut_in_half(&world.desk(), &admission, &["retire"], None)?;
    world.refused(&["undo"], "the VM is retired")?;
    world.done(&["retire"])?;
    world.desk().expect_in(1, None)
}

pub(super) fn killed_at_any_moment() -> Result<()> {
    let world = World::start()?;
    world.done(&["apply"])?;
    let mut torn = 0;
    for round in 0..50 {
        let mut shift = world.spawn(&["shift", "60"])?;
        // Each look takes some milliseconds.
        for _ in 0..round {
            world.weights(0)?;
        }
        shift.kill()?;
        shift.wait()?;
        // An API server may be about to make a write of the one that is dead.
        let are_equal = eventually(format!("round {round}: `status` tells the truth"), PATIENCE, || {
            let are_equal = world.weights(0)? == world.weights(1)?;
            let status = world.ctl(&["status"])?;
            ensure!(status.is_success == are_equal, "{status:?}");
            Ok(are_equal)
        })?;
        torn += u32::from(!are_equal);
        world.done(&["return"])?;
        world.expect([100, 0]).with_context(|| format!("round {round}"))?;
    }
    note("shifts cut in half of 50", &torn.to_string());
    Ok(())
}

/// From the first object to none, each step by a program that is killed in it, and by the next one.
pub(super) fn in_each_step(desk: &Desk<'_>, admission: &Admission) -> Result<()> {
    for (arguments, weights) in [
        (["apply"].as_slice(), Some([100, 0])),
        (&["shift", "20"], Some([80, 20])),
        (&["complete"], Some([0, 100])),
        (&["return"], Some([100, 0])),
        (&["undo"], None),
    ] {
        cut_in_half(desk, admission, arguments, weights)?;
        desk.refused(&["status"], "a step was cut in half")?;
        desk.done(arguments)?;
        desk.expect_in(0, weights)?;
        desk.expect_in(1, weights)?;
    }
    Ok(())
}

/// Kills the program while the second cluster is about to get its half of a step.
fn cut_in_half(desk: &Desk<'_>, admission: &Admission, arguments: &[&str], weights: Option<[u64; 2]>) -> Result<()> {
    admission.hold();
    let mut running = desk.spawn(arguments)?;
    admission.wait_for_write()?;
    eventually("the first cluster has it", PATIENCE, || desk.expect_in(0, weights))?;
    running.kill()?;
    running.wait()?;
    admission.refuse()
}
