//! Rights of the units on the VM, which are enough.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;

use super::steps::*;

const HOSTS: &str = "/etc/hosts";
const MARK: &str = "# BEGIN istio-vm-agent";
/// Where a file makes its writer root.
const ROOTS: [&str; 5] = [
    "/etc",
    "/etc/cron.d",
    "/etc/systemd/system",
    "/etc/ld.so.conf.d",
    "/usr/local/bin",
];

pub(super) fn holds(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    let before = fs::read_to_string(vm.path(HOSTS))?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_calls(mesh)?;

    let agent = vm.property(AGENT, "MainPID")?;
    for folder in ROOTS {
        let file = format!("{folder}/planted");
        let planted = vm
            .command(&["nsenter", "--target", &agent, "--mount", "touch", &file])?
            .output()?;
        ensure!(!planted.status.success(), "the agent can write {file}");
        let said = String::from_utf8_lossy(&planted.stderr);
        ensure!(said.contains("Read-only file system"), "{said}");
    }
    follows_the_file(vm)?;
    limits(vm, &agent)?;

    // Envoy is of another user, and the agent may not signal it.
    vm.run(&["systemctl", "stop", AGENT])?;
    ensure!(vm.property(ENVOY, "ActiveState")? == "inactive", "Envoy runs on");
    ensure!(
        fs::read_to_string(vm.path(HOSTS))? == before,
        "/etc/hosts is not as it was"
    );
    Ok(())
}

/// Also after other programs have put another file in its place, as they do: by renaming.
fn follows_the_file(vm: &Booted) -> Result<()> {
    for round in 0..3 {
        let line = format!("10.9.8.{round} round-{round}");
        let script = format!("echo '{line}' >/etc/hosts.new && mv /etc/hosts.new {HOSTS}");
        vm.run(&["sh", "-c", &script])?;
        e2e::eventually("the names in another /etc/hosts", e2e::PATIENCE, || {
            let text = fs::read_to_string(vm.path(HOSTS))?;
            ensure!(text.contains(MARK) && text.contains(&line), "{text}");
            Ok(())
        })?;
    }
    let script = format!("printf '127.0.0.1 localhost vm\\n::1 localhost ip6-localhost\\n' >{HOSTS}");
    vm.run(&["sh", "-c", &script])?;
    e2e::eventually("the names in a rewritten /etc/hosts", e2e::PATIENCE, || {
        ensure!(fs::read_to_string(vm.path(HOSTS))?.contains(MARK), "they are not there");
        Ok(())
    })
}

fn limits(vm: &Booted, agent: &str) -> Result<()> {
    let envoy = vm.property(ENVOY, "MainPID")?;
    for (unit, pid) in [(AGENT, agent), (ENVOY, &envoy)] {
        let limits = vm.run(&["cat", &format!("/proc/{pid}/limits")])?;
        let core = limits.lines().find(|line| line.starts_with("Max core file size"));
        ensure!(core.is_some_and(|line| line.contains(" 0 ")), "{unit}: {limits}");
        let tasks = vm.property(unit, "TasksMax")?;
        ensure!(tasks.parse::<u32>().is_ok(), "{unit}: TasksMax={tasks}");
    }
    let memory = vm.property(AGENT, "MemoryMax")?;
    ensure!(memory == (512 << 20).to_string(), "MemoryMax={memory}");
    let memory = vm.property(ENVOY, "MemoryMax")?;
    ensure!(memory.parse::<u64>().is_ok(), "{ENVOY}: MemoryMax={memory}");
    Ok(())
}
