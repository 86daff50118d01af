//! `make bench`: what a join costs. From the start of the process until 15021 says ready, how long the rules take, and
//! resident memory once 200 calls were served; in turns with Istio's own agent, which joins the same mesh as another VM,
//! where $LAB_BIN has it, else with an Envoy that nobody configures. What configuration costs that istiod pushes, and what
//! it leaves in memory. How long `status` takes. How long a VM takes to be ready that boots while istiod
//! is dead. How long calls fail when Envoy is killed. DNS of the mesh's names, and what the rules behind the redirection cost.
//! What a fleet asks of its istiod, by `--only fleet`.
//! `--only PART` for one of them alone; `--table FOLDER` to have the figures in files, too, and `--document FILE` in a document.

#![expect(clippy::print_stdout, reason = "this is what the program is for")]

#[path = "bench/bulk.rs"]
mod bulk;
#[path = "bench/dns.rs"]
mod dns;
#[path = "bench/fleet.rs"]
mod fleet;
#[path = "bench/kills.rs"]
mod kills;
#[path = "bench/pushes.rs"]
mod pushes;
#[path = "bench/report.rs"]
mod report;
#[path = "bench/rules.rs"]
mod rules;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use e2e::calls::Load;
use e2e::envoy::Envoy;
use e2e::mesh::{ControlPlane, Kind, Mesh, real_is_at_hand, with_mesh};
use e2e::network::{Host, Network};
use e2e::process::resident;
use e2e::real::PilotAgent;
use e2e::vm::{Agent, Application, Settings};
use e2e::{http, programs};
use rustix::process::Signal;

use self::report::Report;

/// Short enough not to be seen in what is measured.
const PAUSE: Duration = Duration::from_millis(2);
const READINESS_PORT: u16 = 15021;

#[derive(Debug, Parser)]
struct Args {
    /// The agent, a release build.
    #[arg(long)]
    agent: PathBuf,
    /// Number of times that each is measured.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Where bench.md and bench.json are written.
    #[arg(long)]
    table: Option<PathBuf>,
    /// The document that shows the table between its marks, and is given this one.
    #[arg(long)]
    document: Option<PathBuf>,
    /// Number of times that Envoy is killed.
    #[arg(long, default_value_t = 20)]
    kills: usize,
    /// Number of VMs of the fleet, which is measured by `--only fleet` alone.
    #[arg(long, default_value_t = 1000)]
    fleet: usize,
    /// Number of them that are started a second.
    #[arg(long, default_value_t = 10)]
    fleet_rate: u32,
    /// One of the measurements alone.
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
enum Part {
    Join,
    Boot,
    Kills,
    Dns,
    Pushes,
    Bulk,
    Rules,
    Fleet,
}

/// Milliseconds and mebibytes, one a round.
#[derive(Debug, Default)]
struct Figures {
    start: Vec<f64>,
    /// Moments of a first join in their order, each with its times since the start of the agent.
    moments: Vec<(String, Vec<f64>)>,
    /// Of a VM that has a certificate.
    known: Vec<f64>,
    rules_in: Vec<f64>,
    rules_out: Vec<f64>,
    memory: Vec<f64>,
    /// Memory that is in no file, and so can't be taken away from it.
    anonymous: Vec<f64>,
}

impl Figures {
    /// Takes `name 12.3, other name 45.6` out of the line of the log that tells the start.
    fn take_moments(&mut self, log: &str) -> Result<()> {
        let told = log
            .lines()
            .find_map(|line| line.split_once("ready after ")?.1.split_once(": "));
        let (_, told) = told.with_context(|| format!("the log doesn't tell the start:\n{log}"))?;
        for moment in told.split(", ") {
            let (name, time) = moment
                .rsplit_once(' ')
                .with_context(|| format!("{moment} has no time"))?;
            let time = time.parse().with_context(|| format!("{moment} has no time"))?;
            match self.moments.iter_mut().find(|(known, _)| known == name) {
                Some((_, times)) => times.push(time),
                None => self.moments.push((name.to_owned(), vec![time])),
            }
        }
        Ok(())
    }

    fn take_memory(&mut self, pid: u32) -> Result<()> {
        let mebibytes = |which| Ok::<_, anyhow::Error>(resident(pid, which)? as f64 / f64::from(1 << 20));
        self.memory.push(mebibytes("VmRSS")?);
        self.anonymous.push(mebibytes("RssAnon")?);
        Ok(())
    }
}

fn main() -> ExitCode {
    let ended = run(Args::parse());
    if let Err(error) = &ended {
        println!("{error:#}");
    }
    ExitCode::from(u8::from(ended.is_err()))
}

fn run(args: Args) -> Result<()> {
    let Args {
        agent,
        rounds,
        table,
        document,
        kills,
        fleet,
        fleet_rate,
        only,
    } = args;
    let agent = agent.canonicalize().context("failed to find the agent")?;
    let kind = if real_is_at_hand() { Kind::Real } else { Kind::StandIn };
    let settings = Settings {
        program: Some(agent.clone()),
        ..Settings::default()
    };
    let mut report = Report::default();
    let wanted = |part| only.is_none_or(|only| only == part);
    if wanted(Part::Join) {
        with_mesh(kind, settings.clone(), |mesh| compare(mesh, kind, rounds, &mut report))?;
    }
    if wanted(Part::Boot) {
        with_mesh(kind, settings.clone(), |mesh| boot(mesh, rounds, &mut report))?;
    }
    if wanted(Part::Kills) {
        with_mesh(kind, settings.clone(), |mesh| kills::measure(mesh, kills, &mut report))?;
    }
    if wanted(Part::Dns) {
        with_mesh(kind, settings.clone(), |mesh| dns::compare(mesh, rounds, &mut report))?;
    }
    if wanted(Part::Pushes) && kind == Kind::Real {
        with_mesh(kind, settings.clone(), |mesh| {
            pushes::compare(mesh, rounds, &mut report)
        })?;
    }
    if wanted(Part::Bulk) {
        with_mesh(Kind::StandIn, settings.clone(), |mesh| {
            bulk::measure(mesh, rounds, &mut report)
        })?;
    }
    if wanted(Part::Rules) {
        with_mesh(Kind::StandIn, settings, |mesh| {
            rules::compare(mesh, rounds, &mut report)
        })?;
    }
    // Not one of all: a thousand agents want a machine for themselves.
    if only == Some(Part::Fleet) {
        let nobody = Settings {
            application: Application::None,
            ..Settings::default()
        };
        with_mesh(kind, nobody, |mesh| {
            fleet::measure(mesh, agent, fleet, fleet_rate, &mut report)
        })?;
    }
    if let Some(folder) = table {
        report.write(&folder, rounds)?;
    }
    document.map_or(Ok(()), |document| report.put_into(&document, rounds))
}

fn compare(mesh: &Mesh, kind: Kind, rounds: usize, report: &mut Report) -> Result<()> {
    let _application = mesh
        .network
        .spawn(Host::Outside, "productcatalog", programs::productcatalog()?, &[])?;
    let (mut ours, mut theirs) = (Figures::default(), Figures::default());
    for _ in 0..rounds {
        join(mesh, &mut ours)?;
        match &mesh.control_plane {
            ControlPlane::Real { cluster, .. } => {
                let bundle = mesh.network.folder().join("peer-bundle");
                cluster.bundle(&mesh.network, "productcatalog", &bundle)?;
                join_by_istio(mesh, &bundle, &mut theirs)?;
            }
            ControlPlane::StandIn { .. } => start_envoy(mesh, &mut theirs)?,
        }
    }
    let peer = if kind == Kind::Real {
        "pilot-agent"
    } else {
        "bare Envoy"
    };
    println!("medians of {rounds} rounds, istiod: {kind:?}; least and most in brackets\n");
    for (figure, ours, theirs) in [
        ("start to ready, ms", &ours.start, &theirs.start),
        ("the same with a valid certificate, ms", &ours.known, &theirs.start),
        ("rules in, ms", &ours.rules_in, &theirs.rules_in),
        ("rules out, ms", &ours.rules_out, &theirs.rules_out),
        ("resident memory, MiB", &ours.memory, &theirs.memory),
        ("of it anonymous, MiB", &ours.anonymous, &theirs.anonymous),
    ] {
        match theirs.is_empty() {
            true => report.add(figure, ours),
            false => report.compare(figure, ours, peer, theirs),
        }
    }
    for (moment, times) in &ours.moments {
        report.add(&format!("a first join: {moment}, ms after the start"), times);
    }
    status(mesh, rounds, report)
}

/// A first join, and one with the certificate of the first.
fn join(mesh: &Mesh, figures: &mut Figures) -> Result<()> {
    let _ = fs::remove_dir_all(mesh.vm.state_folder());
    let (mut agent, ready) = start(mesh)?;
    figures.start.push(ready);
    figures.take_moments(&agent.output())?;
    call(&mesh.network, Host::Vm)?;
    figures.take_memory(agent.pid())?;
    agent.order(&mesh.network, "/quitquitquit")?;
    agent.wait(e2e::PATIENCE)?;
    let log = agent.output();
    figures.rules_in.push(took(&log, "traffic is redirected to Envoy")?);
    figures.rules_out.push(took(&log, "traffic is not redirected")?);
    let (mut agent, ready) = start(mesh)?;
    figures.known.push(ready);
    leave(mesh, &mut agent)
}

/// Starts the agent; milliseconds until it was ready.
fn start(mesh: &Mesh) -> Result<(Agent, f64)> {
    let started = Instant::now();
    let agent = mesh.vm.start_agent(&mesh.network)?;
    let ready = ready_at(&mesh.network, Host::Vm, READINESS_PORT, "/healthz/ready")?;
    mesh.wait_until_healthy(true)?;
    Ok((agent, millis(ready - started)))
}

/// Milliseconds that the agent says in the last line of its log with these words.
fn took(log: &str, words: &str) -> Result<f64> {
    let line = log.lines().rfind(|line| line.contains(words));
    let took = line.and_then(|line| line.split_once("took=")?.1.split_whitespace().next());
    let took = took.with_context(|| format!("the log has no time of {words:?}:\n{log}"))?;
    let unit = took.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = took.trim_end_matches(unit).parse()?;
    match unit {
        "s" => Ok(number * 1e3),
        "ms" => Ok(number),
        "µs" => Ok(number / 1e3),
        _ => bail!("{took} is no time"),
    }
}

/// Boots while istiod is dead, out of what is on the disk.
fn boot(mesh: &mut Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let mut agent = mesh.join()?;
    mesh.vm.await_snapshot()?;
    mesh.kill_istiod()?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        mesh.vm.power_cycle(&mesh.network, &mut agent)?;
        let started = Instant::now();
        agent = mesh.vm.start_agent(&mesh.network)?;
        let ready = ready_at(&mesh.network, Host::Vm, READINESS_PORT, "/healthz/ready")?;
        times.push(millis(ready - started));
    }
    report.add("start to ready while istiod is dead, ms; 3000 are promised", &times);
    Ok(())
}

/// Without the drain, which takes what the mesh says it takes.
fn leave(mesh: &Mesh, agent: &mut Agent) -> Result<()> {
    agent.kill()?;
    let output = mesh.vm.agent(&mesh.network, &["revert"])?;
    ensure!(output.status.success(), "revert: {output:?}");
    Ok(())
}

fn join_by_istio(mesh: &Mesh, bundle: &Path, figures: &mut Figures) -> Result<()> {
    const HOST: Host = Host::Outside;
    let network = &mesh.network;
    let (agent, ready) = thread::scope(|scope| {
        let ready = scope.spawn(|| ready_at(network, HOST, READINESS_PORT, "/healthz/ready"));
        let agent = PilotAgent::start(network, HOST, bundle);
        (agent, ready.join())
    });
    let (agent, ready) = (agent?, ready.unwrap_or_else(|_| anyhow::bail!("the clock panicked"))?);
    // Its rules are another program's, which is run before it.
    let rules = agent.rules_took();
    figures.start.push(millis(ready - agent.started() + rules));
    figures.rules_in.push(millis(rules));
    call(network, HOST)?;
    figures.take_memory(network.pid_of(HOST, "pilot-agent")?)?;
    figures.rules_out.push(millis(agent.remove_rules(network, HOST)?));
    Ok(())
}

/// At the VM's own address: by its name, calls would also go to the other VM, of which the mesh may not know that it left.
fn call(network: &Network, host: Host) -> Result<()> {
    let calls = Load::on(Network::address(host, 3550));
    e2e::eventually("200 answers", e2e::PATIENCE, || {
        calls.run(network, Host::Pod)?.expect_all_answered()
    })
}

fn start_envoy(mesh: &Mesh, figures: &mut Figures) -> Result<()> {
    let started = Instant::now();
    let _envoy = Envoy::start(&mesh.network, Host::Outside, serde_json::json!({}))?;
    let ready = ready_at(&mesh.network, Host::Outside, 15000, "/ready")?;
    figures.start.push(millis(ready - started));
    figures.take_memory(mesh.network.pid_of(Host::Outside, "envoy")?)?;
    Ok(())
}

/// When it was first found ready.
fn ready_at(network: &Network, host: Host, port: u16, path: &str) -> Result<Instant> {
    let deadline = Instant::now() + e2e::PATIENCE;
    loop {
        match http::get(network, host, port, path) {
            Ok((200, _)) => return Ok(Instant::now()),
            other => ensure!(Instant::now() < deadline, "{port}{path} on {host}: {other:?}"),
        }
        thread::sleep(PAUSE);
    }
}

fn status(mesh: &Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let mut agent = mesh.join()?;
    let time = || -> Result<Vec<f64>> {
        (0..rounds)
            .map(|_| Ok(millis(mesh.vm.status(&mesh.network)?.1)))
            .collect()
    };
    let running = time()?;
    agent.signal(Signal::STOP)?;
    let stopped = time()?;
    agent.signal(Signal::CONT)?;
    agent.kill()?;
    let gone = time()?;
    for (state, times) in [("running", running), ("stopped", stopped), ("gone", gone)] {
        report.add(
            &format!("`status` of an agent that is {state}, ms; 200 are promised"),
            &times,
        );
    }
    leave(mesh, &mut mesh.vm.start_agent(&mesh.network)?)
}

fn summary(values: &mut [f64]) -> String {
    let median = median(values);
    let (least, most) = (values.first().unwrap_or(&0.0), values.last().unwrap_or(&0.0));
    format!("{median:.1} ({least:.1}–{most:.1})")
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
