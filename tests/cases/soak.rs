//! A day in an hour: a random event of the host every 5 s, at 100 calls a second, and nothing that is left of it.
//!
//! Takes as long as E2E_SOAK says, in seconds; ignored without it. `make soak`.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use e2e::calls::Calls;
use e2e::mesh::{Kind, Mesh, with_mesh};
use e2e::network::{EtcView, Host};
use e2e::process::resident;
use e2e::vm::{Agent, Settings};
use e2e::{PATIENCE, eventually};
use libtest_mimic::{Completion, Trial};

use crate::host_events::{OTHER, ip};
use crate::{note, told};

/// Between two events.
const PACE: Duration = Duration::from_secs(5);
/// Calls a second.
const RATE: u32 = 100;
/// Before the first measurement, and before the last: what was allocated for a moment is given back.
const CALM: Duration = Duration::from_secs(15);

type Event = (&'static str, fn(&mut Mesh) -> Result<()>);

/// Events by their codes in the log; true: calls may fail meanwhile.
const EVENTS: [(Event, bool); 9] = [
    (("address-added and address-removed", address_passes), false),
    (("address-changed", address_changes), true),
    (("link-down and link-up", link_flaps), true),
    (("route-lost and route-back", route_flaps), false),
    (("resolvers-changed", resolvers_change), false),
    (("clock-stepped", clock_steps), false),
    // A packet that opens a connection in that moment is lost, and sent again after as long as Envoy waits for it, 1 s.
    (("rules-repaired", rules_go), true),
    (("hosts-repaired", hosts_go), false),
    (("istiod's streams end", streams_end), false),
];

pub(crate) fn trials() -> Vec<Trial> {
    vec![Trial::ignorable_test("stand-in istiod: soak", || {
        let Some(length) = number("E2E_SOAK") else {
            return Ok(Completion::ignored_with("E2E_SOAK, in seconds, is not set"));
        };
        let settings = Settings {
            fixed_address: false,
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
    mesh.vm.make_clock_settable()?;
    let agent = mesh.join()?;
    mesh.wait_until_called()?;
    let load = mesh.calls_to_the_vm().at_rate(RATE, length + 4 * CALM + PATIENCE);
    let calling = load.start(&mesh.network, Host::Pod)?;
    let start = Instant::now();
    pause(CALM)?;
    let before = Held::of(&agent)?;
    let mut happened = Vec::new();
    let mut random = fastrand::Rng::with_seed(seed);
    while start.elapsed() < length {
        let ((name, cause), _) = EVENTS[random.usize(..EVENTS.len())];
        happened.push((start.elapsed().as_secs_f64(), name));
        cause(mesh).with_context(|| format!("{name}, {:?} after the start", start.elapsed()))?;
        pause(PACE)?;
    }
    mesh.wait_until_healthy(true).or_else(|_| away(mesh))?;
    pause(CALM)?;
    let calls = calling.stop()?;
    note("calls", &calls.to_string());
    let lost = lost(&calls, &happened);
    for (name, (events, lost)) in &lost {
        note(name, &format!("{events} times, {lost} calls lost"));
    }
    let after = Held::of(&agent)?;
    note("before", &format!("{before:?}"));
    note("after", &format!("{after:?}"));
    for ((name, _), may_lose) in EVENTS {
        let lost = lost.get(name).map_or(0, |(_, lost)| *lost);
        ensure!(may_lose || lost == 0, "{name}: {lost} calls lost, with E2E_SEED={seed}");
    }
    eventually("descriptors and threads as before", PATIENCE, || {
        let now = Held::of(&agent)?;
        ensure!(
            now.descriptors <= before.descriptors && now.threads <= before.threads,
            "{now:?}, and it was {before:?}, with E2E_SEED={seed}"
        );
        Ok(())
    })?;
    // An allocator keeps what it had at the most.
    let is_more = after.memory > before.memory + before.memory / 2 + (8 << 20);
    ensure!(!is_more, "{after:?}, and it was {before:?}, with E2E_SEED={seed}");
    mesh.expect_calls().map(drop)
}

/// What the agent has of the machine.
#[derive(Debug)]
struct Held {
    memory: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    fn of(agent: &Agent) -> Result<Self> {
        let count =
            |folder: &str| Ok::<_, anyhow::Error>(fs::read_dir(format!("/proc/{}/{folder}", agent.pid()))?.count());
        Ok(Self {
            memory: resident(agent.pid(), "RssAnon")?,
            descriptors: count("fd")?,
            threads: count("task")?,
        })
    }
}

/// By event: how often it was, and the calls that failed from its beginning to the next one's.
fn lost(calls: &Calls, happened: &[(f64, &'static str)]) -> BTreeMap<&'static str, (usize, usize)> {
    let mut lost = BTreeMap::<_, (usize, usize)>::new();
    for (_, name) in happened {
        lost.entry(*name).or_default().0 += 1;
    }
    for call in calls.failed() {
        let ended = call.at + call.took;
        let cause = happened.iter().rev().find(|(at, _)| *at <= ended);
        lost.entry(cause.map_or("nothing", |(_, name)| *name)).or_default().1 += 1;
    }
    lost
}

fn address_passes(mesh: &mut Mesh) -> Result<()> {
    ip(mesh, &["addr", "add", "10.200.0.34/24", "dev", "eth0"])?;
    ip(mesh, &["addr", "del", "10.200.0.34/24", "dev", "eth0"])
}

fn address_changes(mesh: &mut Mesh) -> Result<()> {
    let (from, to) = match mesh.healthy_at(OTHER)? {
        Some(true) => (OTHER, Host::Vm.ipv4()),
        _ => (Host::Vm.ipv4(), OTHER),
    };
    ip(mesh, &["addr", "del", &format!("{from}/24"), "dev", "eth0"])?;
    ip(mesh, &["addr", "add", &format!("{to}/24"), "dev", "eth0"])?;
    route(mesh)?;
    eventually(format!("the VM to be at {to}"), PATIENCE, || {
        ensure!(mesh.healthy_at(to)? == Some(true), "not yet");
        Ok(())
    })?;
    mesh.wait_until_called()
}

fn link_flaps(mesh: &mut Mesh) -> Result<()> {
    ip(mesh, &["link", "set", "eth0", "down"])?;
    ip(mesh, &["link", "set", "eth0", "up"])?;
    route(mesh)?;
    mesh.wait_until_called()
}

fn route_flaps(mesh: &mut Mesh) -> Result<()> {
    ip(mesh, &["-4", "route", "del", "default"])?;
    route(mesh)
}

fn route(mesh: &Mesh) -> Result<()> {
    ip(mesh, &["-4", "route", "replace", "default", "via", "10.200.0.1"])
}

fn resolvers_change(mesh: &mut Mesh) -> Result<()> {
    let file = mesh.network.etc(Host::Vm).join("resolv.conf");
    let other = match fs::read_to_string(&file)?.contains("10.200.0.2") {
        true => "nameserver 10.200.0.5\n",
        false => "nameserver 10.200.0.2\n",
    };
    Ok(fs::write(file, other)?)
}

fn clock_steps(mesh: &mut Mesh) -> Result<()> {
    mesh.vm.set_the_running_clock(1)?;
    mesh.vm.set_the_running_clock(0)
}

fn rules_go(mesh: &mut Mesh) -> Result<()> {
    mesh.network.run(Host::Vm, "nft", &["flush", "ruleset"]).map(drop)
}

fn hosts_go(mesh: &mut Mesh) -> Result<()> {
    let hosts = mesh.network.hosts_file(Host::Vm, EtcView::Plain);
    Ok(fs::write(hosts, "127.0.0.1 localhost\n")?)
}

fn streams_end(mesh: &mut Mesh) -> Result<()> {
    mesh.control_plane.stand_in()?.drop_streams();
    Ok(())
}

/// Healthy at its other address.
fn away(mesh: &Mesh) -> Result<()> {
    ensure!(mesh.healthy_at(OTHER)? == Some(true), "the VM is healthy nowhere");
    Ok(())
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
