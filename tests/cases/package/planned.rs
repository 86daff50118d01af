//! Whatever is planned, again and again, at 200 calls a second beside a second workload: none fails.
//!
//! As many rounds as E2E_PLANNED says; no case without it. `make planned`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use e2e::booted::Booted;
use e2e::calls::Calling;
use e2e::mesh::Mesh;
use e2e::{PATIENCE, eventually, programs};

use super::steps::*;
use crate::note;

/// Calls a second.
const RATE: u32 = 200;
/// Time for which istiod keeps a VM that has gone without a word (PILOT_WORKLOAD_ENTRY_GRACE_PERIOD), and a bit.
const GRACE: f64 = 11.0;
const ENVOY_PROGRAM: &str = "/usr/local/bin/envoy";

/// One thing that is planned; the number is that of its round.
type Planned = fn(&mut Booted, u32) -> Result<()>;

const PLANNED: [(&str, Planned); 5] = [
    ("stopped and started", stopped),
    ("container replaced", container_replaced),
    ("agent upgraded", agent_upgraded),
    ("Envoy upgraded", envoy_upgraded),
    ("VM rebooted", rebooted),
];

/// The number of rounds, if there are to be any.
pub(super) fn rounds() -> Option<u32> {
    std::env::var_os("E2E_PLANNED")?.to_str()?.parse().ok()
}

pub(super) fn none_fails(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    let _second = mesh.start_second_workload()?;
    install(vm)?;
    configure(mesh, vm)?;
    configure_container(mesh, vm)?;
    vm.run(&["systemctl", "start", AGENT])?;
    let mut failed = BTreeMap::<_, (usize, usize)>::new();
    for round in 0..rounds().unwrap_or_default() {
        for (name, planned) in PLANNED {
            let calling = mesh.start_calls(RATE)?;
            expect_calls_of_the_vm(&calling)?;
            planned(vm, round).with_context(|| format!("{name}, round {round}"))?;
            calling.wait_for(calling.so_far().last() + GRACE)?;
            expect_calls_of_the_vm(&calling)?;
            let calls = calling.stop()?;
            if calls.failed().next().is_some() {
                note(name, &calls.to_string());
            }
            let (lost, all) = failed.entry(name).or_default();
            (*lost, *all) = (*lost + calls.failed().count(), *all + calls.0.len());
        }
    }
    for (name, (lost, all)) in &failed {
        note(name, &format!("{lost} of {all} calls failed"));
    }
    ensure!(failed.values().all(|(lost, _)| *lost == 0), "{failed:?}");
    Ok(())
}

fn stopped(vm: &mut Booted, _round: u32) -> Result<()> {
    vm.run(&["systemctl", "stop", AGENT])?;
    vm.run(&["systemctl", "start", AGENT]).map(drop)
}

fn container_replaced(vm: &mut Booted, round: u32) -> Result<()> {
    let container = |vm: &Booted| vm.run(&["docker", "inspect", "--format", "{{.Id}}", "productcatalogservice"]);
    let former = container(vm)?;
    let config = fs::read_to_string(vm.path(CONFIG))?;
    let kept = config.lines().filter(|line| !line.starts_with("env = "));
    let kept: String = kept.map(|line| format!("{line}\n")).collect();
    // The container's is the last table.
    fs::write(vm.path(CONFIG), format!("{kept}env = {{ RELEASE = \"{round}\" }}\n"))?;
    vm.run(&["systemctl", "reload", AGENT])?;
    eventually("the other container", PATIENCE, || {
        ensure!(container(vm)? != former, "the former one runs");
        expect_ready(vm)
    })
}

fn agent_upgraded(vm: &mut Booted, round: u32) -> Result<()> {
    let file = format!("/root/9.{round}.deb");
    programs::package_as(&format!("9.{round}"), None, &vm.path(&file))?;
    let before = vm.property(AGENT, "MainPID")?;
    vm.run(&["dpkg", "--install", &file])?;
    expect_another(vm, AGENT, &before)
}

/// Another file in the place of Envoy's program.
fn envoy_upgraded(vm: &mut Booted, _round: u32) -> Result<()> {
    let (from, to) = match vm.property(ENVOY, "ActiveState")?.as_str() {
        "active" => (ENVOY, OTHER_ENVOY),
        _ => (OTHER_ENVOY, ENVOY),
    };
    let next = Path::new(ENVOY_PROGRAM).with_extension("next");
    let next = next.to_str().context("no text")?;
    vm.run(&["cp", ENVOY_PROGRAM, next])?;
    vm.run(&["mv", next, ENVOY_PROGRAM])?;
    vm.run(&["systemctl", "reload", AGENT])?;
    eventually("the other Envoy alone", PATIENCE, || {
        ensure!(vm.property(to, "ActiveState")? == "active", "{to} is not there yet");
        ensure!(vm.property(from, "ActiveState")? == "inactive", "{from} is still there");
        Ok(())
    })
}

fn rebooted(vm: &mut Booted, _round: u32) -> Result<()> {
    vm.shut_down()?;
    vm.boot()?;
    eventually("the VM to serve", PATIENCE, || expect_ready(vm))
}

fn expect_ready(vm: &Booted) -> Result<()> {
    vm.run(&["istio-vm-agent", "status", "--wait", "ready=1s"]).map(drop)
}

/// Waits until more calls are answered by the VM, whose Envoy says who calls.
fn expect_calls_of_the_vm(calling: &Calling) -> Result<()> {
    let of_the_vm = || calling.so_far().answered().filter(|call| call.caller.is_some()).count();
    let before = of_the_vm();
    eventually("calls to reach the VM", PATIENCE, || {
        ensure!(of_the_vm() > before + RATE as usize, "{}", calling.so_far());
        Ok(())
    })
}
