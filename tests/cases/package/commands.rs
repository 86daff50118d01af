//! Commands that probe the application, which the agent's unit may not run by itself.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;

use super::steps::*;

/// Process that a probe leaves running when nobody ends it.
const LEFT: &str = "sleep 4711";

pub(super) fn probe(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    install(vm)?;
    configure(mesh, vm)?;
    start_application(vm)?;
    let script = format!(
        "#!/bin/sh\n\
         case $(id -u) in 0 | 65534) user=$(id -un) ;; *) user=its-own ;; esac\n\
         echo $user:$(id -gn) $1 >&2\n\
         if [ -e /srv/stuck ]; then {LEFT} & wait; fi\n\
         [ ! -e /srv/sick ]\n"
    );
    fs::write(vm.path("/usr/local/bin/probe"), script)?;
    vm.run(&["chmod", "755", "/usr/local/bin/probe"])?;
    let config = vm.path(CONFIG);
    let probe = "[health.probe]\nexec = { command = [\"probe\", \"${A}$$\"] }\nperiod = \"1s\"\ntimeout = \"3s\"\n";
    fs::write(&config, fs::read_to_string(&config)? + probe)?;
    vm.run(&["systemctl", "start", AGENT])?;
    expect_probe(vm, "healthy")?;
    expect_calls(mesh)?;

    fs::write(vm.path("/srv/sick"), "")?;
    expect_probe(vm, "exit status: 1: its-own:istio-proxy ${A}$$")?;
    fs::remove_file(vm.path("/srv/sick"))?;
    expect_probe(vm, "healthy")?;

    fs::write(vm.path("/srv/stuck"), "")?;
    expect_probe(vm, "no answer within 3s")?;
    expect_left(vm, true)?;
    vm.kill(AGENT)?;
    fs::remove_file(vm.path("/srv/stuck"))?;
    expect_left(vm, false)?;
    expect_probe(vm, "healthy")?;
    let journal = vm.run(&["journalctl", "--no-pager"])?;
    ensure!(!journal.contains("run-u"), "probes fill the journal:\n{journal}");
    let units = vm.run(&["systemctl", "list-units", "--all", "--no-legend", "--state=failed"])?;
    ensure!(units.trim().is_empty(), "{units}");
    Ok(())
}

fn expect_probe(vm: &Booted, part: &str) -> Result<()> {
    e2e::eventually(format!("the probe to be {part}"), e2e::PATIENCE, || {
        // Its status is the verdict.
        let status = vm.command(&["istio-vm-agent", "status"])?.output()?;
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        let told = status
            .lines()
            .find(|line| line.starts_with("Probe"))
            .unwrap_or_default();
        ensure!(told.contains(part), "{status}");
        Ok(())
    })
}

fn expect_left(vm: &Booted, runs: bool) -> Result<()> {
    e2e::eventually("the probe's own processes", e2e::PATIENCE, || {
        let found = vm.command(&["pgrep", "--full", LEFT])?.output()?;
        ensure!(found.status.success() == runs, "{found:?}");
        Ok(())
    })
}
