//! A fleet joins, one VM after another; then its istiod is killed and comes back, at once and after a while. What istiod is
//! asked is counted second by second.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::fleet::Fleet;
use e2e::http;
use e2e::istiod::THREAD;
use e2e::mesh::{ControlPlane, Mesh};
use e2e::network::Host;
use e2e::process::{output_of, processor_time, processor_time_of_thread};

use super::Report;

/// Port of istiod's own metrics.
const METRICS: u16 = 15014;
/// Between two looks.
const TICK: Duration = Duration::from_millis(100);
/// Time that is looked at after istiod ends.
const WATCH: Duration = Duration::from_secs(60);
/// Longest that a fleet may take.
const LONGEST: Duration = Duration::from_secs(900);
/// Times that istiod stays away.
const AWAY: [Duration; 2] = [Duration::ZERO, Duration::from_secs(30)];
/// Counts who opens a connection to istiod, also while there is none.
const RULES: &str = "table inet fleet { counter tries { }; chain input { type filter hook input priority 0; \
    tcp dport 15012 tcp flags & (syn | ack) == syn counter name tries; }; }";

/// The questions that istiod has had since the beginning, at a moment of it.
#[derive(Clone, Copy, Debug)]
struct Look {
    at: Duration,
    /// Attempts to connect.
    tries: u64,
    /// Certificates.
    certificates: u64,
    /// VMs that have a stream now.
    connected: usize,
    /// Processor time of istiod, in seconds.
    worked: f64,
}

pub(crate) fn measure(mesh: &mut Mesh, program: PathBuf, size: usize, rate: u32, report: &mut Report) -> Result<()> {
    mesh.network.within(Host::ControlPlane, || nft(&[RULES]))?;
    let mut fleet = Fleet::new(&mesh.network, mesh.vm.bundle(), Some(program), size)?;
    let began = Instant::now();
    let mut looks = vec![look(mesh, began)?];
    for due in (0..).map(|count| Duration::from_secs(1) * count / rate).take(size) {
        // Where the machine can't keep up, it is still looked at.
        while began.elapsed() < due || is_stale(&looks, began) {
            tick(mesh, began, &mut looks)?;
        }
        fleet.start(&mesh.network)?;
    }
    until_all_are_there(mesh, began, &mut looks, size)?;
    tell(&format!("{size} VMs join, {rate} started a second"), &looks, report);
    resources(&fleet, report)?;
    for away in AWAY {
        let began = Instant::now();
        let mut looks = vec![look(mesh, began)?];
        mesh.kill_istiod()?;
        while began.elapsed() < away {
            tick(mesh, began, &mut looks)?;
        }
        mesh.start_istiod()?;
        until_all_are_there(mesh, began, &mut looks, size)?;
        while began.elapsed() < WATCH {
            tick(mesh, began, &mut looks)?;
        }
        fleet.check_alive()?;
        tell(
            &format!("istiod is killed and back after {} s", away.as_secs()),
            &looks,
            report,
        );
    }
    resources(&fleet, report)
}

/// True when nobody has looked for half a second.
fn is_stale(looks: &[Look], began: Instant) -> bool {
    let last = looks.last().map_or(Duration::ZERO, |look| look.at);
    began.elapsed() - last > TICK * 5
}

fn until_all_are_there(mesh: &Mesh, began: Instant, looks: &mut Vec<Look>, size: usize) -> Result<()> {
    while tick(mesh, began, looks)?.connected < size {
        ensure!(began.elapsed() < LONGEST, "only these have come: {:?}", looks.last());
    }
    Ok(())
}

fn tick(mesh: &Mesh, began: Instant, looks: &mut Vec<Look>) -> Result<Look> {
    thread::sleep(TICK);
    let look = look(mesh, began)?;
    looks.push(look);
    Ok(look)
}

/// Asks the kernel and istiod, who may be gone.
fn look(mesh: &Mesh, began: Instant) -> Result<Look> {
    let (connected, certificates, worked) = match &mesh.control_plane {
        ControlPlane::StandIn { istiod, .. } => {
            let state = istiod.state();
            (
                state.connected(),
                state.certificates().len() as u64,
                processor_time_of_thread(THREAD)?,
            )
        }
        ControlPlane::Real { cluster, .. } => of_real(mesh, cluster.istiod_pid())?,
    };
    let tries = mesh.network.within(Host::ControlPlane, || {
        nft(&["list", "counter", "inet", "fleet", "tries"])
    })?;
    let tries = tries.split_whitespace().skip_while(|word| *word != "packets").nth(1);
    Ok(Look {
        at: began.elapsed(),
        tries: tries.context("no counter")?.parse()?,
        certificates,
        connected,
        worked,
    })
}

/// Of Istio's own, by its metrics; nothing while it doesn't run.
fn of_real(mesh: &Mesh, pid: Option<u32>) -> Result<(usize, u64, f64)> {
    let Some(pid) = pid else { return Ok(Default::default()) };
    let Ok((_, page)) = http::get(&mesh.network, Host::ControlPlane, METRICS, "/metrics") else {
        return Ok(Default::default());
    };
    let sum = |name: &str| {
        let samples = page.lines().filter(|line| line.split(['{', ' ']).next() == Some(name));
        samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>()
    };
    let (streams, certificates) = (sum("pilot_xds"), sum("citadel_server_success_cert_issuance_count"));
    Ok((streams as usize, certificates as u64, processor_time(pid)?))
}

fn nft(args: &[&str]) -> Result<String> {
    let mut command = Command::new("nft");
    command.args(args);
    output_of(command)
}

/// Prints what came second by second, and reports the most of it and when all were there.
fn tell(what: &str, looks: &[Look], report: &mut Report) {
    let mut seconds = vec![Second::default()];
    for [before, look] in looks.array_windows() {
        let index = look.at.as_secs() as usize;
        seconds.resize(seconds.len().max(index + 1), Second::default());
        seconds[index].take(before, look);
    }
    println!(
        "\n{what}\n| second | attempts to connect | certificates | VMs with a stream | istiod's ms |\n|---|---|---|---|---|"
    );
    for (
        index,
        Second {
            tries,
            certificates,
            connected,
            worked,
        },
    ) in seconds.iter().enumerate()
    {
        println!(
            "| {index} | {tries} | {certificates} | {connected} | {:.0} |",
            worked * 1e3
        );
    }
    let size = looks.iter().map(|look| look.connected).max();
    let gone = looks
        .iter()
        .rposition(|look| Some(look.connected) < size)
        .unwrap_or_default();
    let there = looks.get(gone + 1).map_or(f64::NAN, |look| look.at.as_secs_f64());
    report.add(&format!("{what}: seconds until all are there"), &[there]);
    for (name, count) in [
        (
            "attempts to connect",
            (|second| second.tries as f64) as fn(&Second) -> f64,
        ),
        ("certificates", |second| second.certificates as f64),
        ("processor time of istiod, ms", |second| second.worked * 1e3),
    ] {
        let mut counts: Vec<f64> = seconds.iter().map(count).collect();
        counts.sort_by(f64::total_cmp);
        let most = counts.last().copied().unwrap_or_default();
        report.add(&format!("{what}: {name}"), &[counts.iter().sum()]);
        report.add(&format!("{what}: {name}, most a second"), &[most]);
        report.add(
            &format!("{what}: {name}, 95th percentile of a second"),
            &[counts[counts.len() * 95 / 100]],
        );
    }
}

/// The questions of a second.
#[derive(Clone, Debug, Default)]
struct Second {
    tries: u64,
    certificates: u64,
    /// At its end.
    connected: usize,
    worked: f64,
}

impl Second {
    /// An istiod that is started again counts from nothing.
    fn take(&mut self, before: &Look, look: &Look) {
        let certificates = look.certificates.checked_sub(before.certificates);
        self.tries += look.tries - before.tries;
        self.certificates += certificates.unwrap_or(look.certificates);
        self.connected = look.connected;
        self.worked += if look.worked < before.worked {
            look.worked
        } else {
            look.worked - before.worked
        };
    }
}

fn resources(fleet: &Fleet, report: &mut Report) -> Result<()> {
    let memory: Vec<f64> = fleet
        .memory()?
        .iter()
        .map(|bytes| *bytes as f64 / f64::from(1 << 20))
        .collect();
    let descriptors: Vec<f64> = fleet.descriptors()?.iter().map(|count| *count as f64).collect();
    report.add("anonymous memory of each agent, MiB", &memory);
    report.add("open descriptors of each agent", &descriptors);
    Ok(())
}
