//! Names, and the VM's place in the mesh, while the agent hangs and while there is none.

use std::fs;

use anyhow::{Result, ensure};
use e2e::booted::Booted;
use e2e::mesh::Mesh;

use super::life::{ANSWERS, STANDBYS, expect_all_resolved, resolve_on};
use super::steps::*;

const STANDBY: &str = STANDBYS[0];

pub(super) fn outlives_the_agent(mesh: &mut Mesh, vm: &mut Booted) -> Result<()> {
    join(mesh, vm)?;
    let drop_ins = vm.path("/etc/systemd/system/istio-vm-agent.service.d");
    fs::create_dir_all(&drop_ins)?;
    fs::write(drop_ins.join("late.conf"), "[Service]\nRestartSec=1h\nWatchdogSec=1h\n")?;
    vm.run(&["systemctl", "daemon-reload"])?;
    e2e::eventually("the standby to have the sockets", e2e::PATIENCE, || {
        let log = vm.run(&["journalctl", "--no-pager", "--output=cat", "--unit", STANDBY])?;
        ensure!(log.contains("standing by"), "{log}");
        Ok(())
    })?;
    let calling = mesh.start_calls(100)?;
    resolve_on(vm)?;
    vm.run(&["systemctl", "kill", "--kill-who=main", "--signal=STOP", AGENT])?;
    expect_more_answers(vm)?;
    vm.kill(AGENT)?;
    expect_more_answers(vm)?;
    // istiod takes a VM out of the mesh that has no stream for 10 s.
    calling.wait_for(calling.so_far().last() + 13.0)?;
    calling.stop()?.expect_all_answered()?;
    expect_all_resolved(vm)?;
    let log = vm.run(&["journalctl", "--no-pager", "--output=cat", "--unit", STANDBY])?;
    ensure!(log.contains("leaves DNS queries lying"), "who has answered? {log}");
    vm.run(&["systemctl", "stop", AGENT])?;
    for standby in STANDBYS {
        // They end with the unit that puts the host back, for which the stop of the agent does not wait.
        e2e::eventually(format!("the end of {standby}"), e2e::PATIENCE, || {
            let state = vm.property(standby, "ActiveState")?;
            ensure!(state == "inactive", "{state}");
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits for some hundred more, each of which is at most 50 ms after the one before when nothing is slow.
fn expect_more_answers(vm: &Booted) -> Result<()> {
    let answered = || -> Result<usize> { Ok(fs::read_to_string(vm.path(ANSWERS))?.matches("STREAM").count()) };
    let before = answered()?;
    e2e::eventually("names to be answered", e2e::PATIENCE, || {
        let more = answered()? - before;
        ensure!(more > 150, "{more} so far");
        Ok(())
    })
}
