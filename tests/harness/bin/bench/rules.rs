//! Costs of the drops behind the redirection: calls a second, and processor time a call of the VM's Envoy and
//! application and of the whole machine, with the rules as the agent makes them and with their redirects alone, by
//! turns.

use anyhow::{Result, bail, ensure};
use e2e::PATIENCE;
use e2e::calls::Load;
use e2e::mesh::Mesh;
use e2e::network::{Host, Network};
use e2e::process::{output_of, processor_time};
use e2e::vm::Agent;
use rustix::process::{Pid, Signal, kill_process};

use super::{Report, median, summary};

/// Calls of a turn, and turns of a round: short and many, so that whatever else the machine does meets both alike.
const CALLS: u32 = 300;
const TURNS: usize = 30;
const PARALLEL: usize = 16;
const TABLE: &str = "istio_vm_agent";
const WALL: &str = "istio_vm_agent_wall";

/// Calls a second, and microseconds a call; one a turn.
#[derive(Debug, Default)]
struct Figures {
    rate: Vec<f64>,
    envoy: Vec<f64>,
    /// Of Envoy and the application.
    both: Vec<f64>,
    /// Of everybody here whose priority isn't lowered, and of the kernel: packets are looked at in the name of whoever runs.
    machine: Vec<f64>,
}

impl Figures {
    /// The machine's clock ticks but a hundred times a second, so that a round's turns are taken together.
    fn machine_by_round(&self) -> Vec<f64> {
        let rounds = self.machine.chunks(TURNS);
        rounds
            .map(|turns| turns.iter().sum::<f64>() / turns.len() as f64)
            .collect()
    }
}

pub(crate) fn compare(mesh: &Mesh, rounds: usize, report: &mut Report) -> Result<()> {
    let agent = mesh.join()?;
    let served_by = [
        mesh.network.pid_of(Host::Vm, "envoy")?,
        mesh.network.pid_of(Host::Vm, "productcatalog")?,
    ];
    // A connection a call, and its port rests for a minute: all of them would, before the last turn.
    mesh.network
        .run(Host::Outside, "sysctl", &["-qw", "net.ipv4.tcp_tw_reuse=1"])?;
    let rules = taken_over(mesh, &agent)?;
    let turns = rounds * TURNS;
    let mut rows = Vec::new();
    for (name, reconnect) in [("one connection", false), ("a connection a call", true)] {
        let mut figures = [Figures::default(), Figures::default()];
        for turn in 0..turns * 2 {
            let which = [0, 1, 1, 0][turn % 4];
            load(mesh, &rules[which])?;
            measure(mesh, served_by, reconnect, &mut figures[which])?;
        }
        let [mut all, mut redirects] = figures;
        let [mut all_machine, mut redirects_machine] = [&all, &redirects].map(Figures::machine_by_round);
        for (figure, all, redirects) in [
            ("calls a second", &mut all.rate, &mut redirects.rate),
            ("µs of Envoy a call", &mut all.envoy, &mut redirects.envoy),
            (
                "µs of Envoy and the application a call",
                &mut all.both,
                &mut redirects.both,
            ),
            (
                "µs of the whole machine a call",
                &mut all_machine,
                &mut redirects_machine,
            ),
        ] {
            report.compare(
                &format!("all rules, {name}: {figure}"),
                all,
                "redirects alone",
                redirects,
            );
            rows.push(row(&format!("{name}: {figure}"), all, redirects));
        }
    }
    println!(
        "\nmedians of {turns} turns of {CALLS} calls each, of the machine of {rounds} rounds; least and most in brackets, but for the"
    );
    println!("ratio: where the median of ever more turns is to be found, 19 times out of 20\n");
    println!("{:54}{:>26}{:>26}{:>22}", "", "all rules", "redirects alone", "ratio");
    for row in rows {
        println!("{row}");
    }
    agent.signal(Signal::CONT)?;
    Ok(())
}

/// All rules, and the redirects alone, for `nft` to load, with the agent stopped that would take them back.
fn taken_over(mesh: &Mesh, agent: &Agent) -> Result<[String; 2]> {
    let list = |table: &str| mesh.network.run(Host::Vm, "nft", &["list", "table", "inet", table]);
    let (table, wall) = (list(TABLE)?, list(WALL)?.replace("flags owner", ""));
    // It would put right what is changed here; and the table that only its maker may change goes with its maker.
    agent.signal(Signal::STOP)?;
    let maker = i32::try_from(mesh.network.pid_of(Host::Vm, "nft")?)?;
    kill_process(Pid::from_raw(maker).expect("a process has a pid"), Signal::KILL)?;
    e2e::eventually("the wall to go", PATIENCE, || {
        ensure!(list(WALL).is_err(), "it stands");
        Ok(())
    })?;
    let gone = |table: &str| format!("add table inet {table}\ndelete table inet {table}\n");
    let all_gone = gone(TABLE) + &gone(WALL);
    Ok([
        format!("{all_gone}{table}{wall}"),
        format!("{all_gone}{}", redirects_of(&table)),
    ])
}

/// The table without the chains of drops.
fn redirects_of(table: &str) -> String {
    let mut is_drops = false;
    let kept = table.lines().filter(|line| {
        if line.trim_start().starts_with("chain ") {
            is_drops = line.contains("mangle_");
        }
        !is_drops || line.starts_with('}')
    });
    kept.map(|line| format!("{line}\n")).collect()
}

fn load(mesh: &Mesh, script: &str) -> Result<()> {
    let file = mesh.network.folder().join("rules.nft");
    std::fs::write(&file, script)?;
    let mut command = mesh.network.command(Host::Vm, e2e::network::EtcView::Plain, "nft");
    command.arg("-f").arg(file);
    output_of(command).map(drop)
}

fn measure(mesh: &Mesh, served_by: [u32; 2], reconnect: bool, figures: &mut Figures) -> Result<()> {
    let calls = Load {
        reconnect,
        ..Load::on(Network::address(Host::Vm, 3550))
    };
    let [envoy, application] = served_by;
    let times = || Ok::<_, anyhow::Error>([processor_time(envoy)?, processor_time(application)?, of_the_machine()?]);
    let before = times()?;
    let calls = calls
        .as_fast_as_answered(CALLS, PARALLEL)
        .run(&mesh.network, Host::Outside)?;
    let after = times()?;
    calls.expect_all_answered()?;
    let end = calls.0.iter().map(|call| call.at + call.took).fold(0.0, f64::max);
    figures.rate.push(f64::from(CALLS) / end);
    let [envoy, application, machine] = [0, 1, 2].map(|at| (after[at] - before[at]) * 1e6 / f64::from(CALLS));
    figures.envoy.push(envoy);
    figures.both.push(envoy + application);
    figures.machine.push(machine);
    Ok(())
}

/// Seconds that all processors together have worked (proc_stat(5)), in hundredths.
fn of_the_machine() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/stat")?;
    let ticks: Vec<f64> = text
        .split_whitespace()
        .skip(1)
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, _nice, system, _idle, _iowait, irq, softirq, ..] = ticks[..] else {
        bail!("/proc/stat begins with {:?}", text.lines().next());
    };
    Ok((user + system + irq + softirq) / 100.0)
}

/// The ratio is the median of the turns': what else this machine does changes from turn to turn.
fn row(name: &str, all: &mut [f64], redirects: &mut [f64]) -> String {
    let mut ratios: Vec<f64> = all
        .iter()
        .zip(&*redirects)
        .map(|(all, redirects)| all / redirects)
        .collect();
    let (left, right) = (summary(all), summary(redirects));
    let median = median(&mut ratios);
    let (least, most) = confidence(&ratios);
    let ratio = format!("{median:.3} ({least:.3}–{most:.3})");
    format!("{name:54}{left:>26}{right:>26}{ratio:>22}")
}

/// The bounds of a median's 95 % confidence interval, of values in order: those half of 1.96 √n away from it, whatever their
/// distribution.
fn confidence(values: &[f64]) -> (f64, f64) {
    let count = values.len() as f64;
    let at = |index: f64| values.get(index as usize).copied().unwrap_or(f64::NAN);
    let away = 0.98 * count.sqrt();
    (
        at((count / 2.0 - away).max(0.0)),
        at((count / 2.0 + away).min(count - 1.0)),
    )
}
