//! A day in an hour: a random event of the host every 5 s, at 100 calls a second to the VM, and nothing that is left of it.
//!
//! Takes as long as E2E_SOAK says, in seconds; ignored without it. `make soak`.

mod events;
mod world;

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::calls::{Calling, Calls};
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::Host;
use e2e::process::resident;
use e2e::vm::{Application, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::{Completion, Trial};

use self::events::{EVENTS, Event};
use self::world::World;
use crate::{note, told};

/// From the beginning of an event to that of the next.
const PACE: Duration = Duration::from_secs(5);
/// From the end of an event to the beginning of the next, at the least.
const REST: Duration = Duration::from_secs(2);
/// Calls a second; every other one is the second workload's.
const RATE: u32 = 200;
/// Before the first measurement, and before the last: what was allocated for a moment is given back.
const CALM: Duration = Duration::from_secs(15);
/// Part of the time in which agents end, too: the last one is to live through the rest of it.
const WITH_ENDS: f64 = 0.3;

/// Connections that Envoy may have more than before: each worker of a caller has its own, and so has each of Envoy's.
const CONNECTIONS: usize = 8;

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::ignorable_test("stand-in istiod: soak", || {
        let Some(length) = number("E2E_SOAK") else {
            return Ok(Completion::ignored_with("E2E_SOAK, in seconds, is not set"));
        };
        let settings = Settings {
            fixed_address: false,
            application: Application::Container,
            docker_config: r#"{"live-restore": true}"#,
            ..Settings::default()
        };
        told(with_mesh(Kind::StandIn, settings, |mesh| {
            soaked(mesh, Duration::from_secs(length))
        }))?;
        Ok(Completion::Completed)
    })]
}

fn soaked(mesh: &mut Mesh, length: Duration) -> Result<()> {
    let seed = number("E2E_SEED").unwrap_or_else(now);
    note("E2E_SEED", &seed.to_string());
    let _second = mesh.start_second_workload()?;
    let mut world = World::new(mesh)?;
    let load = world.mesh.calls_to_the_vm();
    let load = load.at_rate(RATE, length + 4 * CALM + 2 * PATIENCE);
    let calling = load.start(&world.mesh.network, Host::Pod)?;
    let start = first_call(&calling)?;
    pause(CALM)?;
    let before = Held::of(&world)?;
    let mut happened = Happened::new();
    let mut random = fastrand::Rng::with_seed(seed);
    let went_well = happen(&mut world, start, length, &mut random, &mut happened);
    pause(CALM)?;
    let calls = calling.stop()?;
    let lost = Lost::of(&calls, &happened);
    lost.print(&calls);
    went_well.with_context(|| format!("E2E_SEED={seed}"))?;
    lost.expect_known()?;
    let after = Held::of(&world)?;
    note("before", &format!("{before:?}"));
    note("after", &format!("{after:?}"));
    after.expect_no_more_than(&before, &world)?;
    // Nobody in the mesh is called in plaintext, and the second workload is not in it.
    let calls = world.mesh.expect_calls()?;
    let by_the_vm = calls.answered().filter(|call| call.caller.is_some()).count();
    ensure!(by_the_vm > 0, "the VM answers no call");
    Ok(())
}

/// When each event began, in seconds after the first call, and which.
type Happened = Vec<(f64, &'static Event)>;

/// Deals the events as cards, so that a short soak has had each.
fn happen(
    world: &mut World<'_>,
    start: Instant,
    length: Duration,
    random: &mut fastrand::Rng,
    happened: &mut Happened,
) -> Result<()> {
    let mut cards: Vec<&'static Event> = Vec::new();
    while start.elapsed() < length {
        let ends_are_over = start.elapsed() > length.mul_f64(WITH_ENDS);
        let Some(event) = cards.pop() else {
            let is_dealt = |event: &&Event| !(event.ends_the_agent && ends_are_over);
            cards.extend(EVENTS.iter().filter(is_dealt).filter(|event| is_wanted(event)));
            ensure!(!cards.is_empty(), "no event is left to happen: see E2E_EVENTS");
            random.shuffle(&mut cards);
            continue;
        };
        let began = Instant::now();
        happened.push(((began - start).as_secs_f64(), event));
        (event.happens)(world).with_context(|| format!("{}, {:?} after the start", event.name, began - start))?;
        world
            .wait_until_well()
            .with_context(|| format!("after {}", event.name))?;
        pause(PACE.saturating_sub(began.elapsed()).max(REST))?;
    }
    Ok(())
}

/// Of E2E_EVENTS, which has parts of names with commas between; without it, every one.
fn is_wanted(event: &Event) -> bool {
    std::env::var("E2E_EVENTS").map_or(true, |names| names.split(',').any(|name| event.name.contains(name)))
}

/// The calls that failed, by the event that began last before: before their end, or, of one that nobody answered, before
/// its beginning.
#[derive(Default)]
struct Lost(BTreeMap<&'static str, OfAnEvent>);

#[derive(Default)]
struct OfAnEvent {
    times: usize,
    calls: usize,
    /// From the event to the last call that failed, in seconds.
    longest: f64,
    known_cause: Option<&'static str>,
    words: BTreeMap<String, usize>,
}

impl Lost {
    fn of(calls: &Calls, happened: &Happened) -> Self {
        let mut lost = Self::default();
        for (_, event) in happened {
            let of_it = lost.0.entry(event.name).or_default();
            of_it.times += 1;
            of_it.known_cause = event.loses;
        }
        for call in calls.failed() {
            let failed = match call.code == "DeadlineExceeded" {
                true => call.at,
                false => call.at + call.took,
            };
            let event = happened.iter().rev().find(|(at, _)| *at <= failed);
            let (at, name) = event.map_or((0.0, "no event"), |(at, event)| (*at, event.name));
            let of_it = lost.0.entry(name).or_default();
            of_it.calls += 1;
            of_it.longest = of_it.longest.max(failed - at);
            *of_it
                .words
                .entry(format!("{}: {}", call.code, call.message))
                .or_default() += 1;
        }
        lost
    }

    fn print(&self, calls: &Calls) {
        let events: usize = self.0.values().map(|of_it| of_it.times).sum();
        let by_the_vm = calls.answered().filter(|call| call.caller.is_some()).count();
        let lost: usize = self.0.values().map(|of_it| of_it.calls).sum();
        let (all, hours) = (calls.0.len(), calls.last() / 3600.0);
        note(
            "soak",
            &format!("{events} events in {hours:.2} h; {all} calls, {by_the_vm} answered by the VM, {lost} lost"),
        );
        note("| event | times | calls lost | until, s | cause |", "");
        for (name, of_it) in &self.0 {
            let cause = of_it.known_cause.filter(|_| of_it.calls > 0).unwrap_or("–");
            let OfAnEvent {
                times, calls, longest, ..
            } = of_it;
            note(&format!("| {name} | {times} | {calls} | {longest:.1} | {cause} |"), "");
            for (words, count) in &of_it.words {
                note(&format!("    {count} ×"), words);
            }
        }
    }

    fn expect_known(&self) -> Result<()> {
        for (name, of_it) in &self.0 {
            ensure!(
                of_it.calls == 0 || of_it.known_cause.is_some(),
                "{name}: {} calls lost, of {} events: {:?}",
                of_it.calls,
                of_it.times,
                of_it.words
            );
        }
        Ok(())
    }
}

/// Resources of the machine that the agent and its Envoy have.
#[derive(Debug)]
struct Held {
    agent: OfAProcess,
    envoy: OfAProcess,
}

#[derive(Debug)]
struct OfAProcess {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn of(world: &World<'_>) -> Result<Self> {
        let envoy = world.mesh.vm.envoy_pid(&world.mesh.network)?;
        Ok(Self {
            agent: OfAProcess::of(world.agent.pid())?,
            envoy: OfAProcess::of(envoy.as_raw_nonzero().get().try_into()?)?,
        })
    }

    fn expect_no_more_than(&self, before: &Self, world: &World<'_>) -> Result<()> {
        eventually("descriptors and threads as before", PATIENCE, || {
            let now = Self::of(world)?;
            now.agent.expect_no_more_than(&before.agent, 0)?;
            now.envoy.expect_no_more_than(&before.envoy, CONNECTIONS)
        })?;
        // An allocator keeps what it had at the most.
        let most = before.agent.memory + before.agent.memory / 2 + (8 << 20);
        ensure!(self.agent.memory <= most, "{self:?}, and it was {before:?}");
        Ok(())
    }
}

impl OfAProcess {
    fn of(pid: u32) -> Result<Self> {
        let count = |folder: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{pid}/{folder}"))?.count());
        Ok(Self {
            memory: resident(pid, "RssAnon")?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }

    fn expect_no_more_than(&self, before: &Self, connections: usize) -> Result<()> {
        ensure!(
            self.descriptors <= before.descriptors + connections && self.threads <= before.threads,
            "{self:?}, and it was {before:?}"
        );
        Ok(())
    }
}

/// When the first call was made.
fn first_call(calling: &Calling) -> Result<Instant> {
    eventually("a first answer", PATIENCE, || {
        let calls = calling.so_far();
        let last = calls.0.last().context("none yet")?;
        Instant::now()
            .checked_sub(Duration::from_secs_f64(last.at + last.took))
            .context("before the clock began")
    })
}

fn pause(length: Duration) -> Result<()> {
    let start = Instant::now();
    eventually(format!("{length:?} to pass"), 2 * length, || {
        ensure!(start.elapsed() >= length, "not yet");
        Ok(())
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var_os(variable)?.to_str()?.parse().ok()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
