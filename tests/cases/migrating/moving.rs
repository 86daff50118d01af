//! Calls of both clusters while their split changes, counted where they are made.

use std::fs;
use std::io::{BufRead, BufReader};

use anyhow::{Context, Result, ensure};
use e2e::network::{Host, Network};

use super::callers::{Callers, PROMETHEUS, following};
use super::desk::Desk;
use super::world::{ACCOUNT, World, end, pod};

/// Of twenty calls one fails, and a busy machine makes fewer than are wanted. So long that one of two clusters whose istiod
/// is not asked has a change, too.
const FILE: &str = "
settle = '1s'
gate = { metrics = 'envoy', window = '4s', min_requests = 20, p99_slack = '1s' }
run = { steps = [50, 100], hold = '1m' }";

pub(super) fn moved() -> Result<()> {
    let world = start()?;
    let mut callers = Callers::start(&world)?;
    following(&world, || {
        let calling = callers.call()?;
        by_hand(&world, &callers)?;
        for calling in calling {
            calling.stop()?.expect_all_answered()?;
        }
        let calling = callers.call()?;
        bad_pods(&world, &mut callers)?;
        for calling in calling {
            let calls = calling.stop()?;
            // The last second had none but the VM.
            let last = calls.last() - 1.0;
            ensure!(calls.failed().all(|call| call.at < last), "{calls}");
        }
        Ok(())
    })
}

fn by_hand(world: &World, callers: &Callers<'_>) -> Result<()> {
    for (arguments, share) in [
        (["apply"].as_slice(), 0),
        (&["shift", "20"], 20),
        (&["complete"], 100),
        (&["return"], 0),
    ] {
        world.done(arguments)?;
        callers
            .expect_share(share)
            .with_context(|| format!("after {arguments:?}"))?;
    }
    Ok(())
}

fn bad_pods(world: &World, callers: &mut Callers<'_>) -> Result<()> {
    callers.deploy(&["--fault", "failing"])?;
    let told = run(&world.desk(), |_| Ok(()))?;
    ensure!(told.contains("at 50 % the gate said bad"), "{told}");
    callers.expect_share(0)?;

    callers.deploy(&[])?;
    let mut is_up = true;
    let told = run(&world.desk(), |line| {
        let dies = is_up && line.contains("at 50 %: good");
        is_up &= !dies;
        if dies { callers.kill_pods() } else { Ok(()) }
    })?;
    ensure!(!is_up, "the pods were never good: {told}");
    ensure!(told.contains("at 50 % the gate said bad"), "{told}");
    callers.expect_share(0)?;
    world.done(&["undo"]).map(drop)
}

/// Runs the migration, which is to end by itself and badly; what it told.
pub(super) fn run(desk: &Desk<'_>, mut heard: impl FnMut(&str) -> Result<()>) -> Result<String> {
    let mut running = desk.spawn(&["run"])?;
    let mut told = String::new();
    for line in BufReader::new(running.stdout.take().context("no stdout")?).lines() {
        let line = line?;
        heard(&line)?;
        told += &format!("{line}\n");
    }
    let ended = end(running)?;
    ensure!(!ended.is_success, "{told}");
    Ok(told + &ended.text)
}

/// Two clusters, the first of which is asked for what its caller has.
fn start() -> Result<World> {
    let world = World::start()?;
    let prometheus = |host| format!("prometheus = 'http://{}'", Network::address(host, PROMETHEUS));
    let of_one = format!("istiod = '10.200.0.2:15012'\n{}", prometheus(Host::Pod));
    world.write_file(FILE, &of_one)?;
    let text = fs::read_to_string(world.file())?.replace("settle = '10ms'\n", "");
    let of_two = format!("name = 'two'\n{}", prometheus(Host::Outside));
    fs::write(world.file(), text.replace("name = 'two'", &of_two))?;
    world.clusters[0].apply(ACCOUNT)?;
    world.clusters[0].apply(&pod("cart"))?;
    Ok(world)
}
