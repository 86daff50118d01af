//! Time that calls fail when Envoy is killed, and their errors; beside an Envoy that is started again at once, and
//! whose one listener is in its own file: no agent can be faster than that.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use e2e::calls::{Calling, Calls, Load};
use e2e::envoy::{self, Envoy};
use e2e::mesh::Mesh;
use e2e::network::{Host, Network};
use e2e::programs;
use rustix::process::{Signal, kill_process};
use serde_json::{Value, json};

use super::Report;

/// Calls a second.
const RATE: u32 = 200;
/// Of calls, around one kill: an Envoy that has served for 2 s is started again at once.
const LENGTH: Duration = Duration::from_secs(4);
/// Of calls before the kill, in seconds.
const BEFORE: f64 = 0.5;
/// Port of the Envoy without an agent.
const BARE_PORT: u16 = 13550;

/// Outcome of the kills.
#[derive(Default)]
struct Tally {
    /// Milliseconds from each kill to the last call that fails.
    gaps: Vec<f64>,
    failures: BTreeMap<String, usize>,
    in_plaintext: usize,
}

impl Tally {
    fn add(&mut self, killed_at: f64, calls: &Calls) {
        let last = calls.failed().map(|call| call.at).fold(killed_at, f64::max);
        self.gaps.push((last - killed_at) * 1e3);
        self.gaps.sort_by(f64::total_cmp);
        self.in_plaintext += calls.answered().filter(|call| call.caller.is_none()).count();
        for call in calls.failed() {
            let words = format!("{}: {}", call.code, call.message);
            *self.failures.entry(words).or_default() += 1;
        }
    }

    fn at(&self, share: f64) -> f64 {
        let gap = self.gaps.get((self.gaps.len() as f64 * share) as usize);
        gap.copied().unwrap_or(f64::NAN)
    }

    fn most(&self) -> f64 {
        self.gaps.last().copied().unwrap_or(f64::NAN)
    }

    fn print(&self, whose: &str) {
        let (median, most, nine_of_ten) = (self.at(0.5), self.most(), self.at(0.9));
        println!("{whose}: median {median:.0}, nine of ten within {nine_of_ten:.0}, most {most:.0}");
    }
}

pub(crate) fn measure(mesh: &Mesh, kills: usize, report: &mut Report) -> Result<()> {
    let _agent = mesh.join()?;
    mesh.wait_until_called()?;
    let (mut tally, mut floor) = (Tally::default(), Tally::default());
    // Nobody in the mesh knows it.
    let _workload = mesh
        .network
        .spawn(Host::Outside, "bare", programs::productcatalog()?, &[])?;
    let mut bare = start_bare(&mesh.network)?;
    for _ in 0..kills {
        let calling = begin(&mesh.calls_to_the_vm(), &mesh.network, Host::Pod)?;
        let envoy = mesh.vm.envoy_pid(&mesh.network)?;
        calling.wait_for(BEFORE)?;
        let killed_at = calling.so_far().last();
        kill_process(envoy, Signal::KILL)?;
        tally.add(killed_at, &calling.finish()?);

        let to_bare = Load::on(Network::address(Host::Outside, BARE_PORT));
        let calling = begin(&to_bare, &mesh.network, Host::Outside)?;
        calling.wait_for(BEFORE)?;
        let killed_at = calling.so_far().last();
        drop(bare);
        bare = start_bare(&mesh.network)?;
        floor.add(killed_at, &calling.finish()?);
    }
    println!("\n{kills} kills of Envoy at {RATE} calls a second: ms from the kill to the last call that fails");
    tally.print("the agent's");
    floor.print("one without an agent, with one static listener");
    let figure = "Envoy killed: ms to the last call that fails";
    report.compare(figure, &tally.gaps, "an Envoy without an agent", &floor.gaps);
    println!(
        "ratio of the medians {:.1}, of the most {:.1}",
        tally.at(0.5) / floor.at(0.5),
        tally.most() / floor.most()
    );
    println!("{} answers in plaintext; failures by their words:", tally.in_plaintext);
    for (words, count) in tally.failures {
        println!("{count:8} {words}");
    }
    Ok(())
}

fn begin(load: &Load, network: &Network, from: Host) -> Result<Calling> {
    load.clone().at_rate(RATE, LENGTH).start(network, from)
}

/// Starts an Envoy in front of a workload outside the VM.
fn start_bare(network: &Network) -> Result<Envoy> {
    let address = Host::Outside.ipv4().to_string();
    let bootstrap: Value = json!({"static_resources": {
        "clusters": [envoy::http2_cluster("workload", &address, 3550, None)],
        "listeners": [envoy::listener("inbound", (&address, BARE_PORT), "workload", None)],
    }});
    Envoy::start(network, Host::Outside, bootstrap)
}
