//! How long calls fail when Envoy is killed, and with what words.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use e2e::mesh::Mesh;
use e2e::network::Host;
use rustix::process::{Signal, kill_process};

/// Calls a second.
const RATE: u32 = 200;
/// Of calls, around one kill: an Envoy that has served for 2 s is started again at once.
const LENGTH: Duration = Duration::from_secs(4);
/// Of calls before the kill, in seconds.
const BEFORE: f64 = 0.5;

pub(crate) fn measure(mesh: &Mesh, kills: usize) -> Result<()> {
    let _agent = mesh.join()?;
    mesh.wait_until_called()?;
    let (mut gaps, mut failures, mut in_plaintext) = (Vec::new(), BTreeMap::<_, usize>::new(), 0);
    for _ in 0..kills {
        let load = mesh.calls_to_the_vm().at_rate(RATE, LENGTH);
        let calling = load.start(&mesh.network, Host::Pod)?;
        let envoy = mesh.vm.envoy_pid(&mesh.network)?;
        calling.wait_for(BEFORE)?;
        let killed_at = calling.so_far().last();
        kill_process(envoy, Signal::KILL)?;
        let calls = calling.finish()?;
        let last = calls.failed().map(|call| call.at).fold(killed_at, f64::max);
        gaps.push((last - killed_at) * 1e3);
        in_plaintext += calls.answered().filter(|call| call.caller.is_none()).count();
        for call in calls.failed() {
            *failures.entry(format!("{}: {}", call.code, call.message)).or_default() += 1;
        }
    }
    gaps.sort_by(f64::total_cmp);
    let at = |share: f64| {
        gaps.get((gaps.len() as f64 * share) as usize)
            .copied()
            .unwrap_or(f64::NAN)
    };
    let most = gaps.last().copied().unwrap_or(f64::NAN);
    println!("\n{kills} kills of Envoy at {RATE} calls a second: ms from the kill to the last call that fails");
    println!(
        "median {:.0}, nine of ten within {:.0}, most {most:.0}",
        at(0.5),
        at(0.9)
    );
    println!("{in_plaintext} answers in plaintext; failures by their words:");
    for (words, count) in failures {
        println!("{count:8} {words}");
    }
    Ok(())
}
